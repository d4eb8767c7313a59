//! `inwit-image`: builds the initramfs archive and the unified kernel image that a guest boots and is measured by.
//!
//! Not trusted: the manifest and its sources, and the files of an image. Never prints file contents.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use inwit_image::{
    Archive, ImageError, MAX_MANIFEST_BYTES, Manifest, UkiError, UnifiedKernel, UnifiedParts, write_atomically,
};
use thiserror::Error;

/// Builds reproducible images: the same manifest and files give the same bytes on every machine.
///
/// Exit codes: 0 done, 1 own fault (disk), 2 usage, 3 manifest or source refused.
#[derive(Parser)]
#[command(name = "inwit-image", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build an uncompressed newc cpio archive from a manifest.
    ///
    /// A manifest has one inode per line, fields separated by spaces, `#` for comment lines:
    ///
    ///   dir PATH MODE | file PATH MODE SOURCE | link PATH TARGET | node PATH MODE c|b MAJOR MINOR
    ///
    /// Owner, group and time are 0 and the order of lines does not matter. The archive is not compressed, so that its
    /// measurement depends on no compressor.
    Build {
        /// The manifest.
        manifest: PathBuf,
        /// Where to put the archive; replaced in one step.
        #[arg(short, long)]
        output: PathBuf,
        /// Folder that relative sources are looked up in [default: the manifest's folder].
        #[arg(long)]
        root: Option<PathBuf>,
        /// Print one JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Build a unified kernel image: systemd-stub with kernel, initrd and command line behind it.
    ///
    /// The image boots by itself under UEFI, is measured as a whole, and its command line is the one it holds. It holds
    /// no time and no checksum, and is not signed. `inwit-measure vtpm --uki` says what it measures as.
    Uki(UkiArguments),
}

#[derive(Args)]
struct UkiArguments {
    /// systemd's stub, linuxx64.efi.stub.
    #[arg(long, value_name = "FILE")]
    stub: PathBuf,
    /// Kernel with an EFI stub (bzImage).
    #[arg(long, value_name = "FILE")]
    linux: PathBuf,
    /// Initial ramdisk.
    #[arg(long, value_name = "FILE")]
    initrd: PathBuf,
    /// Kernel command line; @FILE takes it from a file, without the line end.
    #[arg(long, value_name = "TEXT|@FILE")]
    cmdline: String,
    /// An os-release file.
    #[arg(long, value_name = "FILE")]
    os_release: Option<PathBuf>,
    /// The kernel's release, as uname -r says it.
    #[arg(long, value_name = "TEXT")]
    uname: Option<String>,
    /// SBAT lines in the place of the stub's own: repeat those in the file.
    #[arg(long, value_name = "FILE")]
    sbat: Option<PathBuf>,
    /// Where to put the image; replaced in one step.
    #[arg(short, long)]
    output: PathBuf,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Why nothing was built.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("{0}")]
    Unified(#[from] UkiError),
    #[error("cannot read {path:?}: {cause}")]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("{0:?} has more than 4294967295 bytes")]
    TooLarge(PathBuf),
}

fn main() -> ExitCode {
    let report = match Arguments::parse().command {
        Command::Build { manifest, output, root, json } => build(&manifest, &output, root.as_deref())
            .map(|archive| if json { json_report(&output, &archive) } else { text_report(&output, &archive) })
            .map_err(Failure::from),
        Command::Uki(arguments) => unify(&arguments),
    };
    let report = match report {
        Ok(report) => report,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "inwit-image: {failure}");
            return ExitCode::from(if matches!(failure, Failure::Image(ImageError::Write { .. })) { 1 } else { 3 });
        }
    };
    match writeln!(std::io::stdout(), "{report}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}

fn build(manifest: &Path, output: &Path, root: Option<&Path>) -> Result<Archive, ImageError> {
    let text = read_manifest(manifest)?;
    let folder = manifest.parent().unwrap_or(Path::new("."));
    let archive = Manifest::parse(&text)?.build(root.unwrap_or(folder))?;
    write_atomically(output, archive.bytes())?;
    Ok(archive)
}

fn unify(arguments: &UkiArguments) -> Result<String, Failure> {
    let read_given = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
    let (stub, kernel, initrd) = (read(&arguments.stub)?, read(&arguments.linux)?, read(&arguments.initrd)?);
    let (os_release, sbat) = (read_given(&arguments.os_release)?, read_given(&arguments.sbat)?);
    let command_line = match arguments.cmdline.strip_prefix('@') {
        Some(path) => {
            let bytes = read(Path::new(path))?;
            let text = String::from_utf8(bytes).map_err(|_| UkiError::Text("the command line"))?;
            text.strip_suffix('\n').map(ToOwned::to_owned).unwrap_or(text)
        }
        None => arguments.cmdline.clone(),
    };
    let parts = UnifiedParts {
        kernel: &kernel,
        initrd: &initrd,
        command_line: &command_line,
        os_release: os_release.as_deref(),
        uname: arguments.uname.as_deref(),
        sbat: sbat.as_deref(),
    };
    let image = UnifiedKernel::build(&stub, &parts)?;
    write_atomically(&arguments.output, image.bytes())?;
    Ok(if arguments.json { uki_json(&arguments.output, &image) } else { uki_text(&arguments.output, &image) })
}

/// The whole file; offsets of an image have 32 bits.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let limit = u64::from(u32::MAX);
    std::fs::File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|cause| Failure::Unreadable { path: path.to_owned(), cause })?;
    if bytes.len() as u64 > limit { Err(Failure::TooLarge(path.to_owned())) } else { Ok(bytes) }
}

fn uki_text(output: &Path, image: &UnifiedKernel) -> String {
    let sections: String = image.sections().iter().map(|(name, bytes)| format!("\n{name} {bytes}")).collect();
    format!("{}: {} bytes\nsha256 {}{sections}", output.display(), image.bytes().len(), hex(&image.sha256()))
}

fn uki_json(output: &Path, image: &UnifiedKernel) -> String {
    let section = |(name, bytes): &(&str, usize)| serde_json::json!({"name": name, "bytes": bytes});
    serde_json::json!({
        "output": output.display().to_string(),
        "bytes": image.bytes().len(),
        "sha256": hex(&image.sha256()),
        "sections": image.sections().iter().map(section).collect::<Vec<_>>(),
    })
    .to_string()
}

fn read_manifest(path: &Path) -> Result<String, ImageError> {
    let unreadable =
        |cause| ImageError::SourceUnreadable { path: "(manifest)".to_owned(), source_path: path.to_owned(), cause };
    let mut text = String::new();
    // One byte over the limit is enough for the parser to refuse it.
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_MANIFEST_BYTES as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

fn text_report(output: &Path, archive: &Archive) -> String {
    format!(
        "{}: {} bytes\nsha256 {}\nsha384 {}",
        output.display(),
        archive.bytes().len(),
        hex(&archive.sha256()),
        hex(&archive.sha384())
    )
}

fn json_report(output: &Path, archive: &Archive) -> String {
    serde_json::json!({
        "output": output.display().to_string(),
        "bytes": archive.bytes().len(),
        "sha256": hex(&archive.sha256()),
        "sha384": hex(&archive.sha384()),
    })
    .to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
