//! placeholder until the first slice lands

pub mod evidence;
