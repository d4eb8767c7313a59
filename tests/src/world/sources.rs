//! Reads the machine's own package sources, in both of their forms, to learn its mirror and its keyring.
//! Does not trust the files to be well formed: what does not parse is passed over. Never names a mirror itself and
//! never writes to these files; a further source is always a file of its own.
//! Forms: sources.list(5), "ONE-LINE-STYLE FORMAT" and "DEB822-STYLE FORMAT".

use std::{fs, path::Path};

use super::{Result, error::WorldError};

/// One source of binary packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Where, as written: http, https, file, mirror+file …
    pub(crate) uri: String,
    /// `bookworm`, `bookworm-security`, `sid` …
    pub(crate) suites: Vec<String>,
    /// `main` …
    pub(crate) components: Vec<String>,
    /// A keyring's path, or a whole key with its continuation lines; none where the system's default keys hold.
    pub(crate) signed_by: Option<String>,
}

/// A Debian machine's mirror, as its sources tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// The release's own name, for example `bookworm`.
    pub(crate) codename: String,
    /// The archive.
    pub(crate) archive: Source,
    /// The security archive, where one is configured.
    security: Option<Source>,
    /// Every suite that is configured.
    pub(crate) suites: Vec<String>,
}

impl Source {
    /// The same place and keys for another suite.
    pub(crate) fn for_suites(&self, suites: &[&str]) -> Source {
        let suites = suites.iter().map(|suite| (*suite).to_owned()).collect();
        Source { suites, components: vec!["main".into()], ..self.clone() }
    }

    /// One stanza in deb822 form.
    pub(crate) fn to_deb822(&self) -> String {
        let (suites, components) = (self.suites.join(" "), self.components.join(" "));
        let signed_by = self.signed_by.as_ref().map(|key| format!("Signed-By: {key}\n")).unwrap_or_default();
        format!("Types: deb\nURIs: {}\nSuites: {suites}\nComponents: {components}\n{signed_by}", self.uri)
    }
}

impl Mirror {
    /// Reads `/etc/os-release` and the package sources of this machine.
    ///
    /// `INWIT_DEBIAN_MIRROR` (a URI) and `INWIT_DEBIAN_KEYRING` (a path) name a Debian archive where the machine has
    /// none of its own, for example on another distribution with `apt` and `dpkg` installed.
    pub(crate) fn of_this_machine() -> Result<Mirror> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        if let Ok(uri) = std::env::var("INWIT_DEBIAN_MIRROR") {
            let signed_by = std::env::var("INWIT_DEBIAN_KEYRING").ok();
            let archive = Source { uri, suites: Vec::new(), components: vec!["main".into()], signed_by };
            let codename = os_release_field(&release, "VERSION_CODENAME").unwrap_or_default();
            return Ok(Mirror { codename, archive, security: None, suites: Vec::new() });
        }
        let found = Mirror::among(&release, &read_sources(Path::new("/etc/apt")));
        found.ok_or_else(|| {
            let next = "on another distribution set INWIT_DEBIAN_MIRROR and INWIT_DEBIAN_KEYRING to a Debian archive's \
                        URI and keyring";
            WorldError::unusable("package sources", "no Debian archive is configured under /etc/apt", next)
        })
    }

    fn among(os_release: &str, sources: &[Source]) -> Option<Mirror> {
        if os_release_field(os_release, "ID").as_deref() != Some("debian") {
            return None;
        }
        let with_suite = |wanted: &str| sources.iter().find(|s| s.suites.iter().any(|suite| suite == wanted)).cloned();
        // Testing and sid have no codename in os-release before they are released.
        let codename = os_release_field(os_release, "VERSION_CODENAME").unwrap_or_else(|| "sid".into());
        let named = ["stable", "testing", "unstable"].iter().find_map(|name| with_suite(name));
        let archive = with_suite(&codename).or(named)?;
        let security = with_suite(&format!("{codename}-security")).or_else(|| with_suite("stable-security"));
        let suites = sources.iter().flat_map(|source| source.suites.clone()).collect();
        Some(Mirror { codename, archive, security, suites })
    }

    /// The security archive: as configured, else beside the archive under the name that Debian's own layout gives it.
    pub(crate) fn security(&self) -> Option<Source> {
        let beside = || {
            let uri = self.archive.uri.trim_end_matches('/');
            uri.ends_with("/debian").then(|| Source { uri: format!("{uri}-security"), ..self.archive.clone() })
        };
        self.security.clone().or_else(beside)
    }

    /// A mirror as it would be read from this machine.
    #[cfg(test)]
    pub(crate) fn of(codename: &str, archive: Source, suites: &[&str]) -> Mirror {
        let suites = suites.iter().map(|suite| (*suite).to_owned()).collect();
        Mirror { codename: codename.into(), archive, security: None, suites }
    }

    /// Whether the suite is configured already.
    pub(crate) fn offers(&self, suite: &str) -> bool {
        self.suites.iter().any(|known| known == suite)
    }
}

fn os_release_field(text: &str, field: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

fn read_sources(folder: &Path) -> Vec<Source> {
    let parts = fs::read_dir(folder.join("sources.list.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = parts.collect();
    files.sort();
    files.insert(0, folder.join("sources.list"));
    let mut sources = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(text.lines().filter_map(parse_line)),
            Some("sources") => sources.extend(parse_deb822(&text)),
            _ => {}
        }
    }
    sources
}

/// `deb [ option=value … ] uri suite component …`
fn parse_line(line: &str) -> Option<Source> {
    let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    Some(Source { uri, suites: vec![suite], components: words.collect(), signed_by: signed_by.map(str::to_owned) })
}

fn parse_deb822(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).flat_map(parse_stanza).collect()
}

fn parse_stanza(lines: &[&str]) -> Vec<Source> {
    let field = |name: &str| {
        let start = lines
            .iter()
            .position(|line| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name)))?;
        let (first, after) = lines.get(start..)?.split_first()?;
        let (_, value) = first.split_once(':')?;
        let more = after.iter().take_while(|line| line.starts_with([' ', '\t']));
        let value = more.fold(value.trim().to_owned(), |text, line| text + "\n" + line);
        Some(value).filter(|value| !value.is_empty())
    };
    let words = |name: &str| -> Vec<String> {
        field(name).map(|value| value.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
    };
    let off = field("Enabled").is_some_and(|value| ["no", "false"].contains(&value.to_ascii_lowercase().as_str()));
    if off || !words("Types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    let (suites, components, signed_by) = (words("Suites"), words("Components"), field("Signed-By"));
    let source =
        |uri| Source { uri, suites: suites.clone(), components: components.clone(), signed_by: signed_by.clone() };
    words("URIs").into_iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "ID=debian\nVERSION_CODENAME=bookworm\n";
    const DEB822: &str = "# a comment\nTypes: deb deb-src\nURIs: http://one.test/debian\n# within\nSuites: bookworm \
                          bookworm-updates\nComponents: main\nSigned-By: /keys/a.gpg\n\nTypes: deb\nURIs: \
                          http://one.test/sec\nSuites: bookworm-security\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n";

    #[test]
    fn both_forms_tell_mirror_and_keyring() {
        let sources = parse_deb822(DEB822);
        let mirror = Mirror::among(DEBIAN, &sources).unwrap();
        assert_eq!(mirror.archive.uri, "http://one.test/debian");
        assert_eq!(mirror.archive.signed_by.as_deref(), Some("/keys/a.gpg"));
        assert_eq!(mirror.security.as_ref().unwrap().signed_by.as_deref(), Some("\n -----BEGIN\n .\n abc"));
        assert!(mirror.offers("bookworm-updates") && !mirror.offers("bookworm-backports"));

        let line =
            parse_line("deb [arch=amd64 signed-by=/keys/b.gpg] http://two.test/debian bookworm main contrib # x");
        let mirror = Mirror::among(DEBIAN, &[line.unwrap()]).unwrap();
        assert_eq!(mirror.archive.uri, "http://two.test/debian");
        assert_eq!(mirror.security().unwrap().uri, "http://two.test/debian-security", "by Debian's layout");
        assert_eq!(mirror.archive.signed_by.as_deref(), Some("/keys/b.gpg"));
    }

    #[test]
    fn what_is_no_binary_source_is_passed_over() {
        for line in
            ["deb-src http://a.test x main", "# deb http://a.test x main", "debhttp://a.test x", "deb [a http://b.test"]
        {
            assert_eq!(parse_line(line), None, "{line}");
        }
        assert!(parse_deb822("Enabled: no\nTypes: deb\nURIs: http://a.test\nSuites: bookworm\n").is_empty());
        assert!(Mirror::among("ID=ubuntu\nVERSION_CODENAME=noble\n", &parse_deb822(DEB822)).is_none());
    }

    #[test]
    fn a_stanza_written_is_a_stanza_read() {
        for source in parse_deb822(DEB822) {
            let again = source.for_suites(&["sid"]);
            assert_eq!(parse_deb822(&again.to_deb822()), [again]);
        }
    }
}
