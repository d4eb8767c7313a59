//! `inwit-authority endorsements`: import, list, check, and `add` for who knows the store's layout. Every act says what it
//! did, with digests to compare; where something is declined, nothing was changed.

use super::Done;
use super::endorsement_sources::Handed;
use super::endorsement_store::{self as store, Demands, Kind, Older, Plan};
use super::import_told::{declined, imported, lines};
use super::submission::{digest, moment};
use super::table::{Cell, Rows, json, row, text};
use crate::decide::now;
use crate::fault::Fault;
use crate::policy::PermissionFile;
use crate::state::State;
use clap::{Args, Subcommand, ValueEnum};
use inwit_protocol::evidence::Platform;
use std::path::{Path, PathBuf};

const IMPORT_HELP: &str = "\
What a file holds is told by its content: AMD's certificates (ARK, ASK, ASVK, VCEK, VLEK) and revocation lists, a host's
certificate table, Intel's certificates, revocation lists, TCB info, QE identities and whole collateral documents, and
attestation keys of TPMs. Evidence that lies in a folder is passed over, and said so. SGX documents have no effect.

A root is trusted because you say so: name a file that holds nothing but roots, or state the root's digest with --trust-root
after comparing it with the vendor's. One that lies in a folder, or comes along in a certificate chain, a collateral
document or a certificate table, declines the whole import, with its digest. Everything else is taken when a trusted root,
stored or named, signed it.

A newer one replaces an older one of the same kind: TCB info of a platform family by tcbEvaluationDataNumber and issue date,
lists and certificates by their date. A revocation list of AMD's stays beside a newer one that does not name everybody it
names. An older one than the stored one declines the whole import, unless it is byte for byte the same: old lists and
TCB info stay correctly signed for ever, and putting them back would undo a revocation. --accept-older takes it all the
same, in place of the newer: to go back after Intel's early TCB info, for example, never because an import said so.

Everything is checked as a whole before it counts; a bad file changes nothing. Nothing is fetched.

  inwit-authority endorsements import ark-milan.der milan-cert-chain.pem milan.crl
  inwit-authority endorsements import from-intel/ --trust-root DIGEST-OF-INTEL-SGX-ROOT-CA

Exit codes: 0 imported or there already, 1 a file cannot be read or understood, 2 usage, 3 declined. After an import send a
running server SIGHUP.";

const CHECK_HELP: &str = "\
Exit 0: everything under every stored root is there and current for the days of --within. Exit 3: something is missing, has
ended, is not valid yet, or ends within those days; each with what to import next. With --within 0 only what has ended counts.
Platforms of which nothing is stored are refused and count for nothing here, unless --platform names them.

Whether AMD's revocation lists and cloud providers' ASVK are needed is read from [policy.snp] in authority.toml. Whether
all of it was signed is checked too, for the store is loaded as the server loads it.

  inwit-authority endorsements check --within 14 || mail -s \"endorsements\" operators < /dev/null";

#[derive(Subcommand)]
pub(super) enum EndorsementsAct {
    /// Import files and folders; everything is recognised by content and checked as a whole before it counts.
    #[command(after_help = IMPORT_HELP)]
    Import(ImportAct),
    /// Copy files for one platform into the store under their own names; checked as a whole before they count.
    Add {
        /// Platform.
        #[arg(long, value_enum)]
        platform: PlatformName,
        /// For snp the product (milan, genoa, turin); for tdx any name. Not for vtpm.
        #[arg(long, default_value = "default")]
        name: String,
        /// snp: ark.der ask.der [asvk.der] [*.crl]; tdx: root.der collateral.json; vtpm: attestation-keys.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Say what is imported: what, by whom, from when until when, how old, and its digest.
    List {
        /// Moment that ages are counted to: RFC 3339 or seconds since 1970; without it this machine's clock.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        at: Option<u64>,
    },
    /// Say what is missing, has ended or ends soon, and what to import next; for cron.
    #[command(after_help = CHECK_HELP)]
    Check {
        /// Moment to check at: RFC 3339 or seconds since 1970; without it this machine's clock, and said so.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        at: Option<u64>,
        /// Days ahead.
        #[arg(long, value_name = "DAYS", default_value_t = 7)]
        within: u16,
        /// Platform that has to be there; may be given several times.
        #[arg(long, value_enum)]
        platform: Vec<PlatformName>,
    },
}

#[derive(Args)]
pub(super) struct ImportAct {
    /// Files and folders.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// SHA-256 of a root certificate in DER or of an attestation key that you compared: such roots are trusted wherever they
    /// lie, and no others are; may be given several times.
    #[arg(long, value_name = "HEX", value_parser = digest)]
    trust_root: Vec<[u8; 32]>,
    /// Take what is older than what is stored, in its place. Undoes what came between; see below.
    #[arg(long)]
    accept_older: bool,
}

/// A platform on the command line. Azure's are rooted as the processor's.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PlatformName {
    Snp,
    Tdx,
    Vtpm,
}

impl From<PlatformName> for Platform {
    fn from(name: PlatformName) -> Self {
        match name {
            PlatformName::Snp => Self::Snp,
            PlatformName::Tdx => Self::Tdx,
            PlatformName::Vtpm => Self::Vtpm,
        }
    }
}

pub(super) fn endorsements(state: &State, act: &EndorsementsAct) -> Result<Done, Fault> {
    // Where there is no authority, nothing is made that looks like one.
    let policy = state.config()?.policy;
    match act {
        EndorsementsAct::Import(act) => import(state, act),
        EndorsementsAct::Add { platform, name, files } => add(state, *platform, name, files),
        EndorsementsAct::List { at } => list(state, *at),
        EndorsementsAct::Check { at, within, platform } => {
            let demands = Demands {
                amd_lists: policy.snp.without_revocation_list == PermissionFile::Forbidden,
                providers: !policy.snp.providers.is_empty(),
                platforms: platform.iter().map(|name| Platform::from(*name)).collect(),
            };
            check(state, *at, *within, &demands)
        }
    }
}

fn import(state: &State, act: &ImportAct) -> Result<Done, Fault> {
    let folder = state.endorsement_folder();
    let lock = store::lock(&folder)?;
    // As the server loads it: what is there is sound before anything is compared with it.
    state.endorsements()?;
    let (stored, _) = store::read(&folder)?;
    let handed = Handed { paths: &act.paths, sent: Vec::new(), policy: None, digests: &act.trust_root, platform: None };
    let older = if act.accept_older { Older::Accepted } else { Older::Declined };
    let plan = match store::plan(&stored, &handed, older)? {
        Ok(plan) => plan,
        Err(why) => return Ok(declined(&why)),
    };
    store::apply(&lock, &folder, &plan)?;
    let (counts, numbers) = counts(state)?;
    let hints = hints(state, &plan)?;
    let mut said = imported(&plan);
    said.push(row("next", hints.iter().map(|hint| Cell::from(hint.as_str())).collect::<Cell>()));
    let mut lines: Vec<String> = lines(&plan);
    lines.push(counts);
    lines.extend(hints);
    said.extend(numbers);
    Ok(Done::Said(lines.join("\n"), json(&said)))
}

/// What is still to be seen to after an import.
fn hints(state: &State, plan: &Plan) -> Result<Vec<String>, Fault> {
    let minimum = state.config()?.policy.snp.minimum_tcb;
    let mut hints = Vec::new();
    for taken in &plan.taken {
        let Kind::AmdRoot(product) = taken.item.kind else { continue };
        let name = product.name().to_lowercase();
        if !minimum.contains_key(&name) {
            hints.push(unstated(&name));
        }
    }
    for taken in plan.taken.iter().filter(|taken| plan.unverified.contains(&taken.item.digest())) {
        let (name, issuer) = (&taken.item.name, &taken.item.issuer);
        hints.push(format!("{name} is unverified and replaces nothing: no certificate of {issuer} is stored, import its issuer chain too"));
    }
    if !plan.taken.is_empty() {
        hints.push("`inwit-authority endorsements check` says what is still missing".to_owned());
        hints.push("send a running server SIGHUP".to_owned());
    }
    Ok(hints)
}

fn unstated(product: &str) -> String {
    format!(
        "state the lowest acceptable patch levels in authority.toml, [policy.snp.minimum_tcb.{product}]: until then {product} is refused"
    )
}

fn counts(state: &State) -> Result<(String, Rows), Fault> {
    let loaded = state.endorsements()?;
    let (snp, tdx, vtpm) = (loaded.snp.len(), loaded.tdx.len(), loaded.vtpm.len());
    let number = |count: usize| Cell::Number(u64::try_from(count).unwrap_or(u64::MAX));
    let text = format!("endorsements: {snp} SNP roots, {tdx} TDX roots, {vtpm} TPM attestation keys");
    Ok((text, vec![row("snp", number(snp)), row("tdx", number(tdx)), row("vtpm", number(vtpm))]))
}

fn add(state: &State, platform: PlatformName, name: &str, files: &[PathBuf]) -> Result<Done, Fault> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(Fault::of(name, "a name is letters, digits, - and _"));
    }
    let place = match platform {
        PlatformName::Snp => Path::new("snp").join(name),
        PlatformName::Tdx => Path::new("tdx").join(name),
        PlatformName::Vtpm => PathBuf::from("vtpm"),
    };
    let folder = state.endorsement_folder();
    store::add_files(&store::lock(&folder)?, &folder, &place, files)?;
    let (mut text, said) = counts(state)?;
    if platform == PlatformName::Snp && !state.config()?.policy.snp.minimum_tcb.contains_key(name) {
        text.push_str(&format!("\n{}", unstated(name)));
    }
    let is_list = |path: &Path| path.extension().is_some_and(|extension| extension == "crl");
    if platform == PlatformName::Snp && !files.iter().any(|file| is_list(file)) {
        text.push_str("\nimport AMD's revocation list too (a file named *.crl): the default policy demands one");
    }
    text.push_str("\nsend a running server SIGHUP");
    Ok(Done::Said(text, json(&said)))
}

/// The moment, and where it is from.
fn clocked(at: Option<u64>) -> Result<(u64, &'static str), Fault> {
    Ok(match at {
        Some(at) => (at, "--at"),
        None => (now()?, "this machine's clock"),
    })
}

fn list(state: &State, at: Option<u64>) -> Result<Done, Fault> {
    let (at, clock) = clocked(at)?;
    let _held = store::lock(&state.endorsement_folder())?;
    let (counts, mut said) = counts(state)?;
    let (kept, without_effect) = store::read(&state.endorsement_folder())?;
    let (table, rows) = store::list(&kept, at);
    let others = without_effect.iter().map(|path| Cell::from(path.display().to_string())).collect::<Cell>();
    let head = vec![row("at", format!("{} ({clock})", store::date(at))), row("without_effect", others.clone())];
    said.extend([row("at", store::date(at)), row("clock", clock), row("endorsements", rows)]);
    said.push(row("without_effect", others));
    Ok(Done::Said(format!("{counts}\n{}{table}", text(&head)), json(&said)))
}

fn check(state: &State, at: Option<u64>, within: u16, demands: &Demands) -> Result<Done, Fault> {
    let (at, clock) = clocked(at)?;
    let _held = store::lock(&state.endorsement_folder())?;
    let (counts, mut said) = counts(state)?;
    let (kept, _) = store::read(&state.endorsement_folder())?;
    let checked = store::check(&kept, at, within, demands);
    let moment = format!("{} ({clock})", store::date(at));
    said.extend([row("at", store::date(at)), row("clock", clock), row("current", checked.current)]);
    said.push(row("findings", checked.findings));
    if checked.current {
        let text = format!("{counts}\nat {moment}: all of it is there and current for the next {within} days");
        return Ok(Done::Said(text, json(&said)));
    }
    Ok(Done::Refused(format!("{counts}\nat {moment}:\n{}", checked.text), json(&said)))
}
