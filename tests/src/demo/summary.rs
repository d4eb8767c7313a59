//! What the demonstration ends in: the same facts as text and as one JSON object, all taken from what was seen.

use crate::stage::greeter::Visit;
use crate::stage::guest::Phase;
use crate::stage::play::{Outcome, Scene, visit_text};
use inwit_protocol::evidence::Platform;
use serde_json::json;
use std::fmt::Write as _;

/// The facts.
pub(super) struct Summary {
    platform: Platform,
    scene: Scene,
    refusal: Option<String>,
    identity: Option<String>,
    key_released: bool,
    disk_opened: bool,
    workload_answered: bool,
    impostor: Option<String>,
    round_trips: usize,
    phases: Vec<Phase>,
    guest_bytes: u64,
    initramfs_bytes: usize,
    peak_rss: u64,
    host_bytes: usize,
    secrets_found: Vec<String>,
    seconds: f64,
}

impl Summary {
    pub(super) fn of(platform: Platform, scene: Scene, outcome: &Outcome, guest_bytes: u64) -> Self {
        let phases = outcome.run.phases();
        let seen = |name: &str| phases.iter().find(|phase| phase.name == name);
        let granted =
            outcome.audit.iter().map(|record| &record["decision"]).find(|decision| decision["event"] == "granted");
        let identity = granted.and_then(|decision| decision["identifier"].as_str()).map(str::to_owned);
        let released = seen("secrets").is_some_and(|phase| !phase.text.starts_with('0'));
        Self {
            platform,
            scene,
            refusal: outcome.run.refusal_line(),
            identity: identity.filter(|_| seen("credential").is_some()),
            key_released: released,
            disk_opened: seen("disk").is_some(),
            workload_answered: outcome.visits.iter().any(|visit| matches!(visit, Visit::Welcomed(_))),
            impostor: outcome.visits.iter().find(|visit| matches!(visit, Visit::Refused(_))).map(visit_text),
            round_trips: outcome.exchanges,
            guest_bytes,
            initramfs_bytes: outcome.initramfs_bytes,
            peak_rss: outcome.run.peak_rss_bytes(),
            host_bytes: outcome.host_bytes,
            secrets_found: outcome.secrets_found.clone(),
            seconds: outcome.run.seconds,
            phases,
        }
    }

    /// Milliseconds that each phase took, up to the workload's start.
    fn phases_ms(&self) -> Vec<(String, u64)> {
        let mut before = 0;
        let mut list = Vec::new();
        for phase in &self.phases {
            list.push((phase.name.clone(), phase.at_ms.saturating_sub(before)));
            before = phase.at_ms;
            if phase.name == "workload" {
                list.push(("exec_to_workload".to_owned(), phase.at_ms));
                break;
            }
        }
        list
    }

    /// 0 when everything was seen, 3 when the guest was refused, 1 when something else is missing.
    pub(super) fn exit_code(&self) -> u8 {
        let disk = self.disk_opened || self.scene == Scene::Process;
        let whole = self.identity.is_some() && self.key_released && disk && self.workload_answered;
        match (whole && self.secrets_found.is_empty(), &self.refusal) {
            (true, None) => 0,
            (_, Some(_)) => 3,
            (false, None) => 1,
        }
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let phases: serde_json::Map<String, serde_json::Value> =
            self.phases_ms().into_iter().map(|(name, ms)| (name, json!(ms))).collect();
        json!({
            "identity": self.identity,
            "platform": self.platform.text(),
            "mechanism": "c",
            "scene": match self.scene {
                Scene::Machine => "vm",
                Scene::UnifiedMachine => "vm-uki",
                Scene::Process => "process",
            },
            "key_released": self.key_released,
            "disk_opened": self.disk_opened,
            "workload_answered": self.workload_answered,
            "impostor": self.impostor,
            "refusal": self.refusal,
            "round_trips": self.round_trips,
            "phases_ms": phases,
            "seconds": self.seconds,
            "sizes": {
                "guest_bytes": self.guest_bytes,
                "initramfs_bytes": self.initramfs_bytes,
                "guest_peak_rss_bytes": self.peak_rss,
            },
            "host_saw": { "bytes": self.host_bytes, "secrets_found": self.secrets_found.len() },
        })
    }

    pub(super) fn text(&self) -> String {
        let yes = |fact: bool| if fact { "yes" } else { "NO" };
        let disk = match self.scene {
            Scene::Machine | Scene::UnifiedMachine => yes(self.disk_opened),
            Scene::Process => "no disk in a process: the secret was handed over as a file",
        };
        let mut text = String::from("\n");
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<18} {value}");
        };
        row("identity issued", self.identity.as_deref().unwrap_or("NONE"));
        row("platform", &format!("{}, mechanism C (background check)", self.platform));
        row("key released", yes(self.key_released));
        row("disk opened", disk);
        row("workload answered", yes(self.workload_answered));
        row("impostor", self.impostor.as_deref().unwrap_or("did not knock"));
        row("round trips", &format!("TCP + TLS + {}", self.round_trips));
        row(
            "host saw",
            &format!(
                "{} relayed bytes, {} secrets in them, on the disk or on the console",
                self.host_bytes,
                self.secrets_found.len()
            ),
        );
        let phases: Vec<_> = self.phases_ms().iter().map(|(name, ms)| format!("{name} {ms}")).collect();
        row("guest phases, ms", &phases.join(" · "));
        row(
            "sizes, bytes",
            &format!(
                "inwit-guest {} · initramfs {} · guest peak RSS {}",
                self.guest_bytes, self.initramfs_bytes, self.peak_rss
            ),
        );
        if let Some(refusal) = &self.refusal {
            row("REFUSED", refusal);
        }
        text.push('\n');
        text
    }
}
