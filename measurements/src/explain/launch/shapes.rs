//! Shapes of vCPUs: how many, of which type, with which features.
//!
//! Nothing foreign is parsed. Bounded by the caller's budget.

use std::num::NonZeroU16;

use super::super::Search;
use crate::digest::Digest;
use crate::snp::{BeforeVcpus, CpuSignature, GuestFeatures};

/// vCPU counts that are tried alone, and together with another change.
pub(super) const MOST_VCPUS: u16 = 512;
pub(super) const MOST_VCPUS_IN_PAIRS: u16 = 64;
/// Bits of SEV_FEATURES that hypervisors turn on, alone or two together.
pub(super) const FEATURE_BITS: [u64; 13] = [5, 9, 1, 2, 3, 4, 6, 7, 8, 10, 12, 14, 15];

/// The shape of a guest's vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) vcpus: NonZeroU16,
    pub(super) cpu: CpuSignature,
    pub(super) features: GuestFeatures,
}

/// SEV_FEATURES to try, the common ones first.
pub(super) fn feature_values(base: GuestFeatures) -> Vec<GuestFeatures> {
    let one = FEATURE_BITS.iter().map(|bit| 1 | 1 << bit);
    let two =
        FEATURE_BITS.iter().flat_map(|a| FEATURE_BITS.iter().filter(move |b| a < b).map(move |b| 1 | 1 << a | 1 << b));
    let toggled = FEATURE_BITS.iter().map(|bit| base.raw() ^ 1 << bit);
    let all = [1].into_iter().chain(one).chain(toggled).chain(two);
    all.filter_map(|raw| GuestFeatures::from_raw(raw).ok()).filter(|features| *features != base).collect()
}

fn count(vcpus: usize) -> Option<NonZeroU16> {
    u16::try_from(vcpus).ok().and_then(NonZeroU16::new)
}

/// Whether some count of vCPUs gives the digest.
pub(super) fn counted(
    before: &BeforeVcpus,
    shape: Shape,
    most: u16,
    target: Digest<48>,
    search: &mut Search<'_>,
) -> Option<Shape> {
    for (number, digest) in before.each_count(shape.cpu, shape.features).take(most.into()).enumerate() {
        if !search.goes_on() {
            return None;
        }
        if digest == target {
            return Some(Shape { vcpus: count(number + 1)?, ..shape });
        }
    }
    None
}

pub(super) fn fits(before: &BeforeVcpus, shape: Shape, target: Digest<48>, search: &mut Search<'_>) -> Option<Shape> {
    let digest = search.goes_on().then(|| before.digest(shape.vcpus, shape.cpu, shape.features));
    (digest == Some(target)).then_some(shape)
}

pub(super) fn single_shapes(
    before: &BeforeVcpus,
    shape: Shape,
    features: &[GuestFeatures],
    target: Digest<48>,
    search: &mut Search<'_>,
) -> Option<Shape> {
    let counts = counted(before, shape, MOST_VCPUS, target, search);
    let cpus = || CpuSignature::named().map(|(_, cpu)| Shape { cpu, ..shape });
    let features = features.iter().map(|features| Shape { features: *features, ..shape });
    counts.or_else(|| cpus().chain(features).find_map(|shape| fits(before, shape, target, search)))
}

pub(super) fn pairs_of_shapes(
    before: &BeforeVcpus,
    shape: Shape,
    features: &[GuestFeatures],
    target: Digest<48>,
    search: &mut Search<'_>,
) -> Option<Shape> {
    let cpus: Vec<CpuSignature> = CpuSignature::named().map(|(_, cpu)| cpu).chain([shape.cpu]).collect();
    let few = features.iter().take(FEATURE_BITS.len() * 2).copied().chain([shape.features]);
    let mut all = few.flat_map(|features| cpus.iter().map(move |cpu| Shape { cpu: *cpu, features, ..shape }));
    all.find_map(|shape| counted(before, shape, MOST_VCPUS, target, search))
}

/// The CPU of the host itself (`-cpu host`): every model and stepping of the families that have SNP.
pub(super) fn unnamed_cpus(
    before: &BeforeVcpus,
    shape: Shape,
    target: Digest<48>,
    search: &mut Search<'_>,
) -> Option<Shape> {
    let models = [0x19, 0x1a].into_iter().flat_map(|family| (0..=255).map(move |model| (family, model)));
    let all =
        models.flat_map(|(family, model)| (0..16).map(move |stepping| CpuSignature::encode(family, model, stepping)));
    all.map(|cpu| Shape { cpu, ..shape }).find_map(|shape| fits(before, shape, target, search))
}

/// Shapes that differ in one thing, beside a change.
pub(super) fn shapes_beside(
    before: &BeforeVcpus,
    shape: Shape,
    features: &[GuestFeatures],
    target: Digest<48>,
    search: &mut Search<'_>,
) -> Option<Shape> {
    let counts = counted(before, shape, MOST_VCPUS_IN_PAIRS, target, search);
    let cpus = || CpuSignature::named().map(|(_, cpu)| Shape { cpu, ..shape });
    let features = features.iter().map(|features| Shape { features: *features, ..shape });
    counts.or_else(|| cpus().chain(features).find_map(|shape| fits(before, shape, target, search)))
}
