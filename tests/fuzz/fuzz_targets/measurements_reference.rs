//! Reference Values in every form: told apart, read, and written again in every form that can say the same.
#![no_main]

use inwit_measurements::reference::{AgentReference, Form, Measured, ReferenceValues, Stated};
use inwit_measurements::{sha256, sha384};
use libfuzzer_sys::fuzz_target;

const FORMS: [Form; 4] = [Form::Toml, Form::Json, Form::Corim, Form::Rvps];

fn first() -> Vec<Vec<u8>> {
    let pcrs = || [(4, sha256(b"kernel")), (11, sha256(b"uki"))].into();
    let digest = |text: &str| sha384(text.as_bytes());
    let agent = AgentReference { executable: sha256(b"agent"), configuration: sha256(b"configuration") };
    let platforms = [
        Measured::Snp { launch_digest: digest("launch") },
        Measured::Tdx { mrtd: digest("td"), rtmr0: digest("0"), rtmr1: digest("1"), rtmr2: digest("2") },
        Measured::Vtpm { pcrs: pcrs() },
        Measured::AzureSnp { launch_digest: digest("paravisor"), pcrs: pcrs() },
        Measured::AzureTdx { mrtd: digest("paravisor"), pcrs: pcrs() },
    ];
    let values = platforms.map(|measured| {
        Stated::from(ReferenceValues { name: "name".to_owned(), agent: agent.clone(), measured, made_from: None })
    });
    values.iter().flat_map(|values| FORMS.map(|form| values.write(form).expect("a sound one"))).collect()
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let Ok(stated) = Stated::read(input) else {
        assert!(ReferenceValues::read(input).is_err());
        return;
    };
    for form in FORMS {
        let Ok(written) = stated.write(form) else { continue };
        let again = Stated::read(&written).expect("what is written can be read");
        assert_eq!((&again.measured, &again.agent, again.form), (&stated.measured, &stated.agent, form));
        // TOML and JSON hold whole values, which have no end; the others keep the one there is.
        assert!(stated.validity == again.validity, "an end was lost");
    }
});
