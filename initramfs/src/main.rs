//! `inwit-image`: builds the initramfs archive that a guest boots and is measured by.
//!
//! Not trusted: the manifest and its sources. Never prints file contents.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use inwit_image::{Archive, ImageError, MAX_MANIFEST_BYTES, Manifest, write_atomically};

/// Builds reproducible initramfs images: the same manifest and files give the same bytes on every machine.
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
}

fn main() -> ExitCode {
    let Command::Build { manifest, output, root, json } = Arguments::parse().command;
    let report = match build(&manifest, &output, root.as_deref()) {
        Ok(archive) if json => json_report(&output, &archive),
        Ok(archive) => text_report(&output, &archive),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "inwit-image: {error}");
            return ExitCode::from(if matches!(error, ImageError::Write { .. }) { 1 } else { 3 });
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

fn read_manifest(path: &Path) -> Result<String, ImageError> {
    use std::io::Read;
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
