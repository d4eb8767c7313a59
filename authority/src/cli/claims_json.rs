//! Claims as a table with stable names: registers and identifiers in hexadecimal, bit fields as their bits and by name,
//! units in names. The names are an interface: scripts read them. `measured` has the shape that Reference Values have,
//! so that it can be copied into a policy by whoever decides to trust it. Judges nothing.

use super::table::{Cell, Rows, bits, row};
use crate::evidence::{
    AttestationKeyTrust, AzureClaims, AzureTee, Claims, FirmwareVersion, GuestPolicy, ModuleTcb, PckFlag, PlatformInfo,
    QuotingEnclaveTcb, Revocation, RuntimeClaims, SnpClaims, SnpSigner, SnpTcb, TcbStanding, TcbStatus, TdAttributes,
    TdExtension, TdxClaims, VtpmClaims,
};

/// The table of one platform's claims.
pub(super) fn rows(claims: &Claims) -> Rows {
    match claims {
        Claims::Snp(claims) => snp(claims),
        Claims::Tdx(claims) => tdx(claims),
        Claims::Vtpm(claims) => vtpm(claims),
        Claims::Azure(claims) => azure(claims),
    }
}

fn snp(claims: &SnpClaims) -> Rows {
    let (key, provider) = match &claims.signer {
        SnpSigner::Vcek => ("vcek", None),
        SnpSigner::Vlek { provider } => ("vlek", Some(provider.as_str())),
    };
    let revocation = match claims.revocation {
        Revocation::Checked => "checked",
        Revocation::NoList => "no-list",
    };
    // The report writes "asked for by the host" as a level that does not exist.
    let vmpl = (claims.vmpl != u32::MAX).then_some(claims.vmpl);
    let mitigations = |(launch, current)| vec![row("launch", bits(launch)), row("current", bits(current))];
    vec![
        row("report_version", claims.version),
        row("product", claims.product.name()),
        row("measured", vec![row("platform", "snp"), row("launch_digest", &claims.measurement)]),
        row("guest_policy", guest_policy(claims.policy)),
        row("vmpl", vmpl),
        row("requested_by_host", vmpl.is_none()),
        row("signing_key", key),
        row("csp_id", provider),
        row("revocation", revocation),
        row("chip_id", &claims.chip_id),
        row("chip_id_masked", claims.chip_id == [0; 64]),
        row("reported_tcb", tcb(&claims.reported_tcb)),
        row("committed_tcb", tcb(&claims.committed_tcb)),
        row("current_tcb", tcb(&claims.current_tcb)),
        row("launch_tcb", tcb(&claims.launch_tcb)),
        row("current_firmware", firmware(claims.current_firmware)),
        row("committed_firmware", firmware(claims.committed_firmware)),
        row("platform_info", platform_info(claims.platform_info)),
        row("mitigation_vectors", claims.mitigations.map(mitigations)),
        row("guest_svn", claims.guest_svn),
        row("family_id", &claims.family_id),
        row("image_id", &claims.image_id),
        row("host_data", &claims.host_data),
        row("id_key_digest", &claims.id_key_digest),
        row("author_key_digest", &claims.author_key_digest),
        row("report_id", &claims.report_id),
        row("migration_agent_report_id", claims.migration_agent.as_ref()),
    ]
}

fn guest_policy(policy: GuestPolicy) -> Rows {
    let (major, minor) = policy.minimum_abi();
    vec![
        row("bits", bits(policy.bits())),
        row("minimum_abi", format!("{major}.{minor}")),
        row("debug_allowed", policy.debug_allowed()),
        row("migration_agent_allowed", policy.migration_agent_allowed()),
        row("smt_allowed", policy.smt_allowed()),
        row("single_socket_only", policy.single_socket_only()),
        row("cxl_allowed", policy.cxl_allowed()),
        row("aes_256_xts_demanded", policy.aes_256_xts_demanded()),
        row("rapl_off_demanded", policy.rapl_off_demanded()),
        row("ciphertext_hiding_demanded", policy.ciphertext_hiding_demanded()),
        row("page_swap_disabled", policy.page_swap_disabled()),
    ]
}

fn platform_info(info: PlatformInfo) -> Rows {
    vec![
        row("bits", bits(info.bits())),
        row("smt_enabled", info.smt_enabled()),
        row("tsme_enabled", info.tsme_enabled()),
        row("ecc_enabled", info.ecc_enabled()),
        row("rapl_disabled", info.rapl_disabled()),
        row("ciphertext_hiding", info.ciphertext_hiding()),
        row("alias_check_complete", info.alias_check_complete()),
        row("tio_enabled", info.tio_enabled()),
    ]
}

fn tcb(tcb: &SnpTcb) -> Rows {
    vec![
        row("fmc", tcb.fmc.map(u32::from)),
        row("boot_loader", u32::from(tcb.boot_loader)),
        row("tee", u32::from(tcb.tee)),
        row("snp", u32::from(tcb.snp)),
        row("microcode", u32::from(tcb.microcode)),
    ]
}

fn firmware(version: FirmwareVersion) -> Rows {
    vec![
        row("major", u32::from(version.major)),
        row("minor", u32::from(version.minor)),
        row("build", u32::from(version.build)),
    ]
}

fn td_extension(told: &TdExtension) -> Rows {
    vec![
        row("vm_id", u32::from(told.vm_id)),
        row("td_id", &told.td_id),
        row("device_info", &told.device_info),
        row("initial_service_td", &told.initial_service_td),
        row("current_service_td", &told.current_service_td),
    ]
}

fn tdx(claims: &TdxClaims) -> Rows {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &claims.rtmrs;
    let measured = vec![
        row("platform", "tdx"),
        row("mrtd", &claims.mrtd),
        row("rtmr0", rtmr0),
        row("rtmr1", rtmr1),
        row("rtmr2", rtmr2),
    ];
    vec![
        row("quote_version", u32::from(claims.version)),
        row("tcb_status", claims.tcb_status.text()),
        row("current_tcb_status", claims.current_status.map(TcbStatus::text)),
        row("advisory_ids", texts(&claims.advisory_ids)),
        row("tcb_evaluation_number", claims.tcb_evaluation_number),
        row("collateral_from_unix", Cell::Number(claims.collateral_from)),
        row("collateral_until_unix", Cell::Number(claims.collateral_until)),
        row("platform_tcb", standing(&claims.platform)),
        row("tdx_module", claims.module.as_ref().map(tdx_module)),
        row("quoting_enclave", quoting_enclave(&claims.quoting_enclave)),
        row("measured", measured),
        row("rtmr3", rtmr3),
        row("td_attributes", td_attributes(claims.td_attributes)),
        row("xfam", bits(claims.xfam)),
        row("mr_config_id", &claims.mr_config_id),
        row("mr_owner", &claims.mr_owner),
        row("mr_owner_config", &claims.mr_owner_config),
        row("mr_seam", &claims.mr_seam),
        row("mr_service_td", claims.mr_service_td.as_ref()),
        row("extension", claims.extension.as_ref().map(td_extension)),
        row("tee_tcb_svn", &claims.tee_tcb_svn),
        row("tee_tcb_svn2", claims.tee_tcb_svn2.as_ref()),
        row("fmspc", &claims.fmspc),
        row("dynamic_platform", flag(claims.dynamic_platform)),
        row("cached_keys", flag(claims.cached_keys)),
        row("smt_enabled", flag(claims.smt_enabled)),
    ]
}

/// How Intel's collateral stands to one part.
fn standing(tcb: &TcbStanding) -> Rows {
    vec![
        row("status", tcb.status.text()),
        row("tcb_date_unix", Cell::Number(tcb.date)),
        row("advisory_ids", texts(&tcb.advisory_ids)),
    ]
}

fn tdx_module(module: &ModuleTcb) -> Rows {
    let own = vec![row("id", module.id.as_str()), row("isvsvn", u32::from(module.isvsvn))];
    [own, standing(&module.tcb)].concat()
}

fn quoting_enclave(enclave: &QuotingEnclaveTcb) -> Rows {
    [vec![row("isvsvn", u32::from(enclave.isvsvn))], standing(&enclave.tcb)].concat()
}

fn texts(texts: &[String]) -> Cell {
    texts.iter().map(|text| Cell::from(text.as_str())).collect()
}

fn td_attributes(attributes: TdAttributes) -> Rows {
    vec![
        row("bits", bits(attributes.bits())),
        row("reserved", bits(attributes.reserved())),
        row("under_debug", attributes.under_debug()),
        row("sept_ve_disable", attributes.sept_ve_disable()),
        row("migratable", attributes.migratable()),
        row("service_td_extension", attributes.service_td_extension()),
        row("performance_monitoring", attributes.performance_monitoring()),
    ]
}

/// Three answers are not a truth value.
fn flag(flag: PckFlag) -> &'static str {
    match flag {
        PckFlag::No => "no",
        PckFlag::Unstated => "unstated",
        PckFlag::Yes => "yes",
    }
}

fn vtpm(claims: &VtpmClaims) -> Rows {
    let event = |event: &crate::evidence::BootEvent| {
        Cell::from(vec![
            row("pcr", event.pcr),
            row("kind", bits(event.kind.into())),
            row("digest", &event.digest),
            row("data_bytes", Cell::Number(u64::try_from(event.data.len()).unwrap_or(u64::MAX))),
        ])
    };
    vec![
        row("attestation_key_sha256", &claims.attestation_key),
        row("attestation_key_trusted_by", trusted_by(claims.attestation_key_trust)),
        row("measured", vec![row("platform", "vtpm"), row("pcrs", pcrs(claims))]),
        row("reset_count", claims.reset_count),
        row("restart_count", claims.restart_count),
        row("clock_milliseconds", Cell::Number(claims.clock)),
        row("clock_safe", claims.clock_safe),
        row("firmware_version", bits(claims.firmware_version)),
        row("boot_events", claims.events.iter().map(event).collect::<Cell>()),
    ]
}

/// What is measured stands once, over all: neither TEE nor TPM alone says what booted on which paravisor.
fn azure(claims: &AzureClaims) -> Rows {
    let (platform, register, digest, tee) = match &claims.tee {
        AzureTee::Snp(claims) => ("azure-snp", "launch_digest", &claims.measurement, snp(claims)),
        AzureTee::Tdx(claims) => ("azure-tdx", "mrtd", &claims.mrtd, tdx(claims)),
    };
    let parts = |rows: Rows| rows.into_iter().filter(|(name, _)| name != "measured").collect::<Rows>();
    let measured =
        claims.tpm.as_ref().map(|tpm| vec![row("platform", platform), row(register, digest), row("pcrs", pcrs(tpm))]);
    vec![
        row("measured", measured),
        row("paravisor", vec![row(register, digest)]),
        row("runtime", runtime(&claims.runtime)),
        row("tee", parts(tee)),
        row("tpm", claims.tpm.as_ref().map(|tpm| parts(vtpm(tpm)))),
    ]
}

fn runtime(claims: &RuntimeClaims) -> Rows {
    vec![
        row("attestation_key_sha256", &claims.attestation_key),
        row("console_enabled", claims.console_enabled),
        row("interactive_console_enabled", claims.interactive_console_enabled),
        row("secure_boot", claims.secure_boot),
        row("tpm_enabled", claims.tpm_enabled),
        row("tpm_persisted", claims.tpm_persisted),
        row("vpci_devices_allowed", claims.vpci_devices_allowed),
        row("hardware_sealing_policy", claims.hardware_sealing_policy.as_deref()),
        row("root_certificate_thumbprint", claims.root_certificate_thumbprint.as_deref()),
        row("vm_unique_id", claims.vm_unique_id.as_deref()),
        row("current_time", claims.current_time.and_then(|time| u64::try_from(time).ok()).map(Cell::Number)),
        row("user_data", claims.user_data.as_ref()),
    ]
}

fn pcrs(claims: &VtpmClaims) -> Rows {
    (0u8..).zip(&claims.pcrs).map(|(number, pcr)| row(number.to_string(), pcr)).collect()
}

fn trusted_by(trust: AttestationKeyTrust) -> &'static str {
    match trust {
        AttestationKeyTrust::ConfiguredKey => "configured-key",
        AttestationKeyTrust::ConfiguredName => "configured-name",
        AttestationKeyTrust::Paravisor => "paravisor",
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::json;
    use super::*;
    use crate::evidence::BootEvent;
    use inwit_measurements::reference::Measured;

    #[test]
    fn a_tpms_measured_part_can_be_copied_into_reference_values() {
        let claims = VtpmClaims {
            pcrs: std::array::from_fn(|number| [u8::try_from(number).unwrap(); 32]),
            reset_count: 3,
            restart_count: 1,
            clock: 1_000,
            clock_safe: true,
            firmware_version: 0x2020_2020_2020_2020,
            attestation_key: [7; 32],
            attestation_key_trust: AttestationKeyTrust::ConfiguredKey,
            events: vec![BootEvent { pcr: 4, kind: 6, digest: [9; 32], data: b"kernel".to_vec() }],
        };
        let json = json(&rows(&Claims::Vtpm(Box::new(claims))));
        let Ok(Measured::Vtpm { pcrs }) = serde_json::from_value(json["measured"].clone()) else { panic!("{json}") };
        assert_eq!((pcrs.len(), pcrs[&23].as_bytes()), (24, &[23; 32]));
        assert_eq!((json["clock_milliseconds"].as_u64(), json["clock_safe"].as_bool()), (Some(1_000), Some(true)));
        assert_eq!(json["firmware_version"], "0x2020202020202020");
        assert_eq!(json["boot_events"][0]["data_bytes"], 6);
    }
}
