//! Nothing but a place for `benches/`: what is measured lives there. Never part of a product.
