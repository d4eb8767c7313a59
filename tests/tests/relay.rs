//! The real relay between a hostile crowd and a hostile port, with a real guest among them: what strangers say through the
//! relay, and what comes back at it, neither stops the guest nor gets anybody anything. The relay's own bounds are held by
//! the tests beside it.

mod refusals_support;

use inwit_protocol::refusal::RefusalCode;
use inwit_tests::stage::guest::End;
use inwit_tests::stage::service::Service;
use refusals_support::impostor::Rig;
use refusals_support::site::{Log, Site};
use refusals_support::{Ground, process_ground};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

/// The relay between the guest's socket and this address.
fn relay(ground: &Ground, rig: &Rig<'_>, to: SocketAddr) -> Service {
    let mut command = Command::new(&ground.programs.shim);
    let socket = rig.path().join("authority.sock");
    command.arg("--json").arg("--listen").arg(format!("unix:{}", socket.display()));
    command.arg("--to").arg(format!("tcp:{to}"));
    let service = Service::start("inwit-shim", &mut command, &rig.path().join("shim.log")).unwrap();
    service.wait_for("ready").unwrap();
    service
}

/// Peak resident memory of a process, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_crowd_at_the_relay_does_not_stop_the_guest() {
    let Some(ground) = process_ground("a crowd at the relay") else { return };
    let rig = Rig::on_snp(&ground);
    let site = Site::open_for(&ground, 256, |pin| {
        rig.pin(pin);
        rig.agent()
    });
    let shim = relay(&ground, &rig, site.address);
    let socket = rig.path().join("authority.sock");
    let mut crowd: Vec<UnixStream> = (0..150).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    for (number, stranger) in crowd.iter_mut().enumerate() {
        let said: &[u8] = match number % 4 {
            0 => b"",
            1 => &[0xa5; 4_096],
            2 => b"GET / HTTP/1.1\r\n\r\n",
            // The head of a handshake record whose rest does not come.
            _ => &[0x16, 3, 1, 0x10, 0, 1],
        };
        // Whom the authority has hung up on already, the relay has hung up on, too.
        let _ = stranger.write_all(said);
    }
    let run = rig.run();
    assert_eq!((run.refusal(), run.end.clone()), (None, End::Exited(0)), "{}", run.text());
    drop(crowd);
    assert_eq!(shim.stop().unwrap(), Some(0));
    assert_eq!(site.close(), Log { granted: 1, refused: vec![] });
}

#[test]
fn a_flood_from_the_authoritys_side_reaches_nobody() {
    let Some(ground) = process_ground("a flood at the relay") else { return };
    let rig = Rig::on_snp(&ground);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let shim = relay(&ground, &rig, listener.local_addr().unwrap());
    let flood = std::thread::spawn(move || {
        let block = vec![0x17; 1 << 20];
        // Two guests, one after the other, and as much for each as it lets itself be sent.
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4_096]);
            let _ = (0..256).try_for_each(|_| stream.write_all(&block));
        }
    });
    for _ in 0..2 {
        rig.assert_refused(&rig.run(), RefusalCode::Malformed);
    }
    flood.join().unwrap();
    let peak = peak_kib(shim.pid());
    assert!(peak < 64 * 1024, "the relay took {peak} KiB for what nobody read");
    assert_eq!(shim.stop().unwrap(), Some(0));
}
