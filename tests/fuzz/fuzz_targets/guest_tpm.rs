//! What a TPM answers, as the guest takes it apart: every one of its readers over the same bytes, and one after another as
//! the client does. The host makes the TPM, so all of it is hostile.
#![no_main]

use inwit_guest::tpm::response::{
    body, created, nv_data, nv_size, parameters, pcr, promised, qualifying_data, quoted, rsassa,
};
use libfuzzer_sys::fuzz_target;

const SELECTION: [u8; 10] = [0, 0, 0, 1, 0, 0x0b, 3, 1, 0, 0];
const INDEX: u32 = 0x0140_0001;

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes(), bytes].concat()
}

fn response(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 10).unwrap_or(u32::MAX);
    [&[0x80, 1][..], &length.to_be_bytes(), &[0; 4], body].concat()
}

fn authorised(handle: &[u8], parameters: &[u8]) -> Vec<u8> {
    let length = u32::try_from(parameters.len()).unwrap_or(u32::MAX);
    response(&[handle, &length.to_be_bytes(), parameters, &[0, 0, 1, 0, 0]].concat())
}

fn first() -> Vec<Vec<u8>> {
    let attest = [&b"\xff\x54\x43\x47\x80\x18"[..], &sized(b"name"), &sized(&[7; 32]), &[0; 17]].concat();
    let signature = [&[0, 0x14, 0, 0x0b][..], &sized(&[9; 256])].concat();
    let public = [&INDEX.to_be_bytes()[..], &[0, 0x0b, 0, 0, 0, 0], &sized(&[]), &2_600u16.to_be_bytes()].concat();
    vec![
        response(&[&[0; 4][..], &SELECTION, &[0, 0, 0, 1], &sized(&[3; 32])].concat()),
        authorised(&[0x80, 0, 0, 1], &sized(&[0x23; 90])),
        authorised(&[], &[sized(&attest), signature].concat()),
        response(&[sized(&public), sized(&[0x0b; 34])].concat()),
        authorised(&[], &sized(b"HCLA")),
        vec![0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x22],
    ]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    if let Some(header) = input.first_chunk() {
        let _ = promised(header);
    }
    let _ = (qualifying_data(input), rsassa(input));
    let Ok(Some(body)) = body(input) else { return };
    assert!(pcr(body, &SELECTION).is_err() || body.len() == 4 + 10 + 4 + 2 + 32);
    let _ = (created(body), nv_size(body, INDEX));
    let Ok(parameters) = parameters(body) else { return };
    if let Ok((attest, signature)) = quoted(parameters) {
        let _ = (qualifying_data(attest), rsassa(signature));
    }
    for asked in [0, 4, 1_024, u16::MAX] {
        assert!(nv_data(parameters, asked).is_err() || parameters.len() >= usize::from(asked));
    }
});
