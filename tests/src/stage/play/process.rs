//! A play with the guest as an ordinary process: the same binary, the same simulated device behind a file system, nothing
//! measured and nothing isolated.

use super::super::guest::run_process;
use super::super::image::{self, Place, Settings};
use super::super::office::Office;
use super::super::trust::{self, Booted, Root};
use super::super::{CONFIDENTIAL, Result};
use super::{Outcome, Play, Telling, Twist};
use crate::hardware::TsmFs;
use crate::hardware::azure::QuoteService;
use crate::world::swtpm::Swtpm;

impl Play<'_> {
    pub(super) fn play_process(mut self, office: &Office, root: &Root) -> Result<Outcome> {
        let folder = self.folder.clone();
        let (tsm_root, log) = (folder.join("tsm"), folder.join("event-log"));
        let socket = self.tpm_folder(root).map(|folder| folder.join("tpm.sock"));
        if socket.is_none() {
            std::fs::create_dir_all(&tsm_root)?;
        }
        std::fs::write(&log, empty_event_log())?;
        let socket = socket.unwrap_or_else(|| folder.join("no-tpm"));
        let place = Place::Process {
            folder: &folder,
            tsm_root: &tsm_root,
            tpm: &socket,
            event_log: &log,
            hello: &self.programs.hello,
        };
        let settings = Settings { pin: &self.pin(office), identifier: self.identifier(), modules: &[], place };
        let text = image::configuration(&settings);
        let configuration = folder.join("guest.conf");
        std::fs::write(&configuration, &text)?;
        let agent = trust::agent(&self.programs.guest, &text)?;
        let measured = trust::measure(self.platform, &Booted::Process, &agent)?;
        office.add_secret("payload", CONFIDENTIAL.as_bytes())?;
        self.register(office, &agent, &measured, &["payload"])?;
        let hardware = self.hardware(office, root, &measured)?;
        let tpm = hardware.tpm.map(|folder| Swtpm::serve(&folder)).transpose()?;
        let quotes = hardware.quoting.map(|machine| QuoteService::listen(&folder.join("td-quote.sock"), machine));
        let _quotes = quotes.transpose()?;
        let device = hardware.machine.map(|machine| TsmFs::mount(&tsm_root, machine)).transpose()?;
        if let (Twist::Device(fault), Some(device)) = (&self.twist, &device) {
            device.device().set_fault(fault.clone());
        }
        let host = self.host(office, &folder.join("authority.sock"), &folder.join("greeter.sock"))?;
        self.step("starting inwit-guest as an ordinary process: NOT measured, NOT isolated");
        let tell = &mut self.tell;
        let run = run_process(self.programs, &configuration, |at, line| tell(Telling::Console(at, line)))?;
        drop((device, tpm));
        self.outcome(office, host, run, measured, 0, None)
    }
}

/// A log that holds its header and no event, for a TPM that no firmware has touched.
fn empty_event_log() -> Vec<u8> {
    let mut specification = b"Spec ID Event03\0".to_vec();
    specification.extend([0, 0, 0, 0, 0, 2, 0, 2]); // platform class, minor, major, errata, uintn size
    specification.extend(1u32.to_le_bytes());
    specification.extend([0x0b, 0, 32, 0, 0]); // SHA-256, 32 bytes; no vendor information
    let mut log = [0u32.to_le_bytes(), 3u32.to_le_bytes()].concat();
    log.extend([0; 20]);
    log.extend((specification.len() as u32).to_le_bytes());
    log.extend(specification);
    log
}
