//! The variable store inside a firmware's configuration volume (CFV): where builds with enrolled keys keep them.
//!
//! Sources: edk2 `MdeModulePkg` `VariableFormat.h` (authenticated variables), `OvmfPkg/VarStore.fdf.inc`; UEFI 2.10
//! section 32 (SecureBoot and its keys). A store begins with a header of 28 bytes; each variable has one of 60, its name
//! in UTF-16LE with NUL, its data, and begins at a multiple of four. A TD starts with the store as it is in the image:
//! no flash keeps changes.
//!
//! Not trusted: the volume. Deleted variables are passed over; unfinished, repeated and malformed ones are refused,
//! because firmware might read them in another way; so are variables that may add events to RTMR0 or change those that
//! are known. Never checks what a key is worth.

use thiserror::Error;

use crate::bytes::{array_at, index, u16_at, u32_at};
use crate::ovmf::guid;
use crate::uefi::{GLOBAL_VARIABLE, IMAGE_SECURITY, SecureBoot, SecureBootVariables};

const VOLUME: [u8; 16] = guid(0xfff1_2b8d, 0x7696, 0x4c8b, 0xa985_2747_075b_4f50);
const AUTHENTICATED_STORE: [u8; 16] = guid(0xaaf3_2c78, 0x947b, 0x439a, 0xa180_2e14_4ec3_7792);
const SECURE_BOOT_ENABLE: [u8; 16] = guid(0xf0a3_0bc7, 0xaf08, 0x4556, 0x99c4_0010_09c9_3a44);
const CUSTOM_MODE: [u8; 16] = guid(0xc076_ec0c, 0x7028, 0x4399, 0xa072_71ee_5c44_8b9f);
const CERTIFICATES: [u8; 16] = guid(0xd9be_e56e, 0x75dc, 0x49d9, 0xb4d7_b534_210f_637a);
const VENDOR_KEYS: [u8; 16] = guid(0x9073_e4e0, 0x60ec, 0x4b6e, 0x9903_4c22_3c26_0f3c);
const MONOTONIC_COUNTER: [u8; 16] = guid(0xeb70_4011, 0x1402, 0x11d3, 0x8e77_00a0_c969_723b);

/// The keys of Secure Boot, which are measured and read here.
const KEYS: [([u8; 16], &str); 4] =
    [(GLOBAL_VARIABLE, "PK"), (GLOBAL_VARIABLE, "KEK"), (IMAGE_SECURITY, "db"), (IMAGE_SECURITY, "dbx")];
/// What enrolling keys leaves beside them: the switch read here, and others that no firmware measures and that decide
/// nothing of what it measures.
const HARMLESS: [([u8; 16], &str); 5] = [
    (SECURE_BOOT_ENABLE, "SecureBootEnable"),
    (CUSTOM_MODE, "CustomMode"),
    (CERTIFICATES, "certdb"),
    (VENDOR_KEYS, "VendorKeysNv"),
    (MONOTONIC_COUNTER, "MTC"),
];

const STORE_HEADER: usize = 28;
const VARIABLE_HEADER: usize = 60;
/// Formatted and healthy.
const STORE_STATE: [u8; 2] = [0x5a, 0xfe];
/// Most live variables; stores of real machines hold under a hundred.
const MAX_VARIABLES: usize = 512;
/// First two bytes of a variable.
const VARIABLE_MARK: u16 = 0x55aa;
/// A variable is live in this state; bit 0 cleared means that it is being replaced, bit 1 that it is deleted.
const LIVE: u8 = 0x3f;
const BEING_REPLACED: u8 = 0x3e;
const NEVER_FINISHED: u8 = 0x7f;

/// Why a configuration volume is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// No volume of variables, or not one with authenticated variables.
    #[error("the configuration volume holds no store of authenticated variables")]
    NoStore,
    /// The store is not formatted, or longer than its volume.
    #[error("the variable store is damaged: {0}")]
    Store(&'static str),
    /// A variable's lengths do not fit, its name is no text, or its state is none that firmware leaves behind.
    #[error("the variable at offset {0:#x} of the configuration volume is malformed")]
    Variable(usize),
    /// A live variable is there twice.
    #[error("variable {0:?} is in the store twice")]
    Repeated(String),
    /// More than any machine has.
    #[error("more than {MAX_VARIABLES} live variables in the store")]
    TooMany,
    /// A live variable that may change what is measured.
    #[error(
        "the firmware's variable store holds {0:?}, for which there is no rule: variables such as dbt, BootOrder or \
         DriverOrder add events to RTMR0 or change them. Use an image that holds the keys of Secure Boot alone, or give the \
         log of a trusted boot with --machine-log"
    )]
    Unknown(String),
    /// Keys in a build that does not know Secure Boot.
    #[error(
        "the firmware's variable store holds {0:?}, but the build does not know Secure Boot: nothing tells what it measures"
    )]
    Key(&'static str),
    /// SecureBootEnable is neither 0 nor 1.
    #[error("the variable SecureBootEnable is neither 0 nor 1")]
    Switch,
}

/// One live variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Vendor GUID in its stored form.
    pub vendor: [u8; 16],
    /// Name without NUL.
    pub name: String,
    /// Contents.
    pub data: &'a [u8],
}

/// The live variables of a configuration volume, in store order.
///
/// # Errors
/// [`StoreError`].
pub fn variables(volume: &[u8]) -> Result<Vec<Variable<'_>>, StoreError> {
    if array_at(volume, 16) != Some(VOLUME) || volume.get(40..44) != Some(b"_FVH") {
        return Err(StoreError::NoStore);
    }
    let start = u16_at(volume, 48).map(usize::from).ok_or(StoreError::NoStore)?;
    if array_at(volume, start) != Some(AUTHENTICATED_STORE) {
        return Err(StoreError::NoStore);
    }
    let size = u32_at(volume, start + 16).and_then(index).ok_or(StoreError::Store("no size"))?;
    if array_at(volume, start + 20) != Some(STORE_STATE) {
        return Err(StoreError::Store("not formatted"));
    }
    let end = start.checked_add(size).filter(|end| (start + STORE_HEADER..=volume.len()).contains(end));
    let store = end.and_then(|end| volume.get(..end)).ok_or(StoreError::Store("its size does not fit"))?;
    let mut found: Vec<Variable<'_>> = Vec::new();
    let mut at = start + STORE_HEADER;
    // Each turn moves on by at least a variable's header.
    while u16_at(store, at) == Some(VARIABLE_MARK) {
        let (state, variable, next) = variable(store, at).ok_or(StoreError::Variable(at))?;
        match state {
            LIVE => {
                if found.iter().any(|known| (known.vendor, &known.name) == (variable.vendor, &variable.name)) {
                    return Err(StoreError::Repeated(variable.name));
                }
                // Firmware deletes a variable by giving it no data.
                if variable.data.is_empty() {
                    return Err(StoreError::Variable(at));
                }
                if found.len() == MAX_VARIABLES {
                    return Err(StoreError::TooMany);
                }
                found.push(variable);
            }
            BEING_REPLACED | NEVER_FINISHED | 0xff => return Err(StoreError::Variable(at)),
            _ => {}
        }
        at = next;
    }
    // What follows the last variable was never written.
    match store.get(at..).unwrap_or_default().iter().position(|byte| *byte != 0xff) {
        None => Ok(found),
        Some(distance) => Err(StoreError::Variable(at + distance)),
    }
}

fn variable(store: &[u8], at: usize) -> Option<(u8, Variable<'_>, usize)> {
    let state = *store.get(at.checked_add(2)?)?;
    let name_size = index(u32_at(store, at + 36)?)?;
    let data_size = index(u32_at(store, at + 40)?)?;
    let vendor = array_at(store, at + 44)?;
    let name_at = at + VARIABLE_HEADER;
    let data_at = name_at.checked_add(name_size)?;
    let end = data_at.checked_add(data_size)?;
    let wide: Vec<u16> = store.get(name_at..data_at)?.chunks_exact(2).filter_map(|pair| u16_at(pair, 0)).collect();
    let (0, characters) = wide.split_last()? else { return None };
    if !name_size.is_multiple_of(2) || characters.contains(&0) {
        return None;
    }
    let name = String::from_utf16(characters).ok()?;
    let variable = Variable { vendor, name, data: store.get(data_at..end)? };
    Some((state, variable, end.checked_next_multiple_of(4)?))
}

/// The live variables, where all are of those that have a rule here.
fn with_rules(volume: &[u8]) -> Result<Vec<Variable<'_>>, StoreError> {
    let variables = variables(volume)?;
    let is = |variable: &Variable<'_>, (vendor, name): &([u8; 16], &str)| {
        variable.vendor == *vendor && variable.name == *name
    };
    let rules = KEYS.iter().chain(&HARMLESS);
    match variables.iter().find(|variable| !rules.clone().any(|known| is(variable, known))) {
        Some(unknown) => Err(StoreError::Unknown(unknown.name.clone())),
        None => Ok(variables),
    }
}

/// Secure Boot as firmware with Secure Boot starts it from this volume: on where a platform key is enrolled, unless a
/// variable SecureBootEnable of 0 switches it off.
///
/// # Errors
/// [`StoreError`]: also for live variables other than the keys and what enrolling them leaves, because they may change
/// RTMR0 otherwise.
pub fn secure_boot(volume: &[u8]) -> Result<SecureBootVariables, StoreError> {
    let variables = with_rules(volume)?;
    let of = |vendor: [u8; 16], name: &str| {
        let found = variables.iter().find(|variable| variable.vendor == vendor && variable.name == name);
        found.map(|variable| variable.data.to_vec()).unwrap_or_default()
    };
    let pk = of(GLOBAL_VARIABLE, "PK");
    let switched_off = match of(SECURE_BOOT_ENABLE, "SecureBootEnable").as_slice() {
        [] | [1] => false,
        [0] => true,
        _ => return Err(StoreError::Switch),
    };
    Ok(SecureBootVariables {
        enabled: Some(u8::from(!pk.is_empty() && !switched_off)),
        pk,
        kek: of(GLOBAL_VARIABLE, "KEK"),
        db: of(IMAGE_SECURITY, "db"),
        dbx: of(IMAGE_SECURITY, "dbx"),
    })
}

/// The same for builds without Secure Boot, where no key may be in the volume.
///
/// # Errors
/// As [`secure_boot`].
pub(super) fn without_secure_boot(volume: &[u8]) -> Result<SecureBootVariables, StoreError> {
    let variables = with_rules(volume)?;
    let held = |(vendor, name): &&([u8; 16], &str)| {
        variables.iter().any(|variable| variable.vendor == *vendor && variable.name == *name)
    };
    match KEYS.iter().find(held) {
        Some((_, name)) => Err(StoreError::Key(name)),
        None => Ok(SecureBootVariables::without_keys(SecureBoot::Absent)),
    }
}

/// A volume with these live variables {vendor, name, data} for tests; never part of the product.
#[cfg(test)]
pub(crate) fn sample(live: &[([u8; 16], &str, &[u8])]) -> Vec<u8> {
    let mut volume = vec![0; 72];
    volume[16..32].copy_from_slice(&VOLUME);
    volume[40..44].copy_from_slice(b"_FVH");
    volume[48] = 72;
    volume.extend(AUTHENTICATED_STORE);
    volume.extend([0; 4]);
    volume.extend(STORE_STATE);
    volume.extend([0; 6]);
    for (vendor, name, data) in live {
        let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        volume.extend(VARIABLE_MARK.to_le_bytes());
        volume.extend([LIVE, 0]);
        volume.extend([0; 32]);
        volume.extend((name.len() as u32).to_le_bytes());
        volume.extend((data.len() as u32).to_le_bytes());
        volume.extend(vendor);
        volume.extend([name.as_slice(), data].concat());
        volume.resize(volume.len().next_multiple_of(4), 0xff);
    }
    let size = volume.len().next_multiple_of(1200);
    volume.resize(size, 0xff);
    volume[32..36].copy_from_slice(&(size as u32).to_le_bytes());
    volume[88..92].copy_from_slice(&((size - 200) as u32).to_le_bytes());
    volume
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> Vec<u8> {
        sample(&[
            (GLOBAL_VARIABLE, "PK", b"platform"),
            (IMAGE_SECURITY, "db", b"allowed"),
            (CUSTOM_MODE, "CustomMode", b"0"),
        ])
    }

    #[test]
    fn enrolled_keys_are_found_and_switch_secure_boot_on() {
        let found = secure_boot(&keys()).unwrap();
        assert_eq!(
            (found.enabled, found.pk.as_slice(), found.db.as_slice()),
            (Some(1), &b"platform"[..], &b"allowed"[..])
        );
        assert_eq!((found.kek, found.dbx), (vec![], vec![]));
        assert_eq!(secure_boot(&sample(&[])).unwrap().enabled, Some(0));
        let switch = (SECURE_BOOT_ENABLE, "SecureBootEnable", &[0][..]);
        assert_eq!(secure_boot(&sample(&[(GLOBAL_VARIABLE, "PK", b"x"), switch])).unwrap().enabled, Some(0));
        for data in [&[2][..], &[1, 0]] {
            let switch = (SECURE_BOOT_ENABLE, "SecureBootEnable", data);
            assert_eq!(secure_boot(&sample(&[(GLOBAL_VARIABLE, "PK", b"x"), switch])), Err(StoreError::Switch));
        }
    }

    /// Each of these adds events to RTMR0 or changes those that are computed.
    #[test]
    fn variables_without_a_rule_are_refused_by_name() {
        for (vendor, name) in [
            (IMAGE_SECURITY, "dbt"),
            (IMAGE_SECURITY, "dbr"),
            (GLOBAL_VARIABLE, "BootOrder"),
            (GLOBAL_VARIABLE, "Boot0007"),
            (GLOBAL_VARIABLE, "BootNext"),
            (GLOBAL_VARIABLE, "DriverOrder"),
            (GLOBAL_VARIABLE, "Driver0001"),
            (GLOBAL_VARIABLE, "SysPrepOrder"),
            (GLOBAL_VARIABLE, "SecureBoot"),
            (GLOBAL_VARIABLE, "db"),
            ([9; 16], "PK"),
        ] {
            let volume = sample(&[(GLOBAL_VARIABLE, "PK", b"x"), (vendor, name, b"data")]);
            assert_eq!(variables(&volume).map(|found| found.len()), Ok(2));
            let refused = Err(StoreError::Unknown(name.to_owned()));
            assert_eq!((secure_boot(&volume), without_secure_boot(&volume)), (refused.clone(), refused));
        }
        let rest = HARMLESS.map(|(vendor, name)| (vendor, name, &b"\x01"[..]));
        assert_eq!(without_secure_boot(&sample(&rest)).unwrap().enabled, None);
        assert_eq!(secure_boot(&sample(&rest)).unwrap().enabled, Some(0));
        for (vendor, name) in KEYS {
            assert_eq!(without_secure_boot(&sample(&[(vendor, name, b"x")])), Err(StoreError::Key(name)));
        }
    }

    #[test]
    fn stores_have_no_end_of_variables() {
        let names: Vec<String> = (0..=MAX_VARIABLES).map(|number| number.to_string()).collect();
        let all: Vec<_> = names.iter().map(|name| ([1; 16], name.as_str(), &b"x"[..])).collect();
        assert_eq!(variables(&sample(&all)), Err(StoreError::TooMany));
        assert_eq!(variables(&sample(&all[1..])).map(|found| found.len()), Ok(MAX_VARIABLES));
        let nothing = sample(&[([1; 16], "a", b"")]);
        assert_eq!(variables(&nothing), Err(StoreError::Variable(72 + STORE_HEADER)));
    }

    #[test]
    fn damaged_stores_are_refused() {
        let good = keys();
        let spoil = |at: usize, bytes: &[u8]| {
            let mut volume = good.clone();
            volume[at..at + bytes.len()].copy_from_slice(bytes);
            variables(&volume).map(|found| found.len())
        };
        let first = 72 + STORE_HEADER;
        assert_eq!(spoil(0, b""), Ok(3));
        assert_eq!(spoil(first + 2, &[0x3c]), Ok(2), "deleted");
        for (at, bytes) in [(16, [0; 4]), (40, [0; 4]), (48, [0xff; 4]), (72, [0; 4])] {
            assert_eq!(spoil(at, &bytes), Err(StoreError::NoStore));
        }
        assert_eq!(spoil(72 + 16, &[0xff; 4]), Err(StoreError::Store("its size does not fit")));
        assert_eq!(spoil(72 + 16, &[0; 4]), Err(StoreError::Store("its size does not fit")));
        assert_eq!(spoil(72 + 20, &[0]), Err(StoreError::Store("not formatted")));
        for (at, bytes) in [(2, [0x3e; 1]), (2, [0x7f]), (36, [0xff]), (36, [5]), (36, [0]), (43, [0xff])] {
            let refused = spoil(first + at, &bytes);
            assert!(matches!(refused, Err(StoreError::Variable(_))), "{at} {refused:?}");
        }
        assert_eq!(spoil(1000, b"x"), Err(StoreError::Variable(1000)), "hidden behind the end");
        let twice = sample(&[([1; 16], "a", b"1"), ([1; 16], "a", b"2")]);
        assert_eq!(variables(&twice), Err(StoreError::Repeated("a".to_owned())));
        assert_eq!(variables(&[]), Err(StoreError::NoStore));
    }

    proptest! {
        #[test]
        fn changed_stores_never_panic(changes in proptest::collection::vec((0usize..400, any::<u8>()), 1..8), length in 0usize..1200) {
            let mut volume = keys();
            for (at, byte) in changes {
                volume[at] = byte;
            }
            volume.truncate(length);
            let _ = secure_boot(&volume);
        }
    }
}
