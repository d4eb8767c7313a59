//! Kernel modules out of an unpacked kernel: their order from `modules.dep`, their bytes decompressed.
//! Does not trust the list to be free of loops or to name files inside the folder only. Never strips or changes a module:
//! that would drop its signature.

use std::{
    collections::HashMap,
    fs,
    path::{Component, Path},
};

use super::{Result, command::Call, error::WorldError};

/// One module, ready for `finit_module`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its file's name without suffix, for example `vmw_vsock_virtio_transport` or `dm-crypt`.
    pub name: String,
    /// The ELF file, decompressed.
    pub bytes: Vec<u8>,
}

/// `modules.dep`: for each module file what it needs, by its name in the kernel's spelling (`_` for `-`).
struct Dependencies<'a> {
    by_name: HashMap<String, (&'a str, Vec<&'a str>)>,
}

impl<'a> Dependencies<'a> {
    /// One line each: `path: path path …`.
    fn parse(text: &'a str) -> Dependencies<'a> {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let by_name =
            lines.map(|(file, needs)| (kernel_name(file), (file, needs.split_whitespace().collect()))).collect();
        Dependencies { by_name }
    }

    /// Adds the module after everything it needs, each once. `false` if there is no such module.
    fn add(&self, name: &str, order: &mut Vec<&'a str>, begun: &mut Vec<&'a str>) -> bool {
        let Some((file, needs)) = self.by_name.get(name) else { return false };
        if begun.contains(file) {
            return true;
        }
        begun.push(file);
        let all = needs.iter().all(|need| self.add(&kernel_name(need), order, begun));
        order.push(file);
        all
    }
}

/// Reads the modules of these names and all that they need out of `lib/modules/<version>`.
pub(crate) fn load(folder: &Path, names: &[&str]) -> Result<Vec<Module>> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(WorldError::file("read", path))
    };
    let (listed, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    order(&listed, &builtin, names)?.into_iter().map(|file| load_one(folder, file)).collect()
}

/// Files in load order.
fn order<'a>(listed: &'a str, builtin: &str, names: &[&str]) -> Result<Vec<&'a str>> {
    let dependencies = Dependencies::parse(listed);
    let (mut order, mut begun) = (Vec::new(), Vec::new());
    for name in names {
        let wanted = kernel_name(name);
        let built_in = || builtin.lines().any(|file| kernel_name(file) == wanted);
        if !dependencies.add(&wanted, &mut order, &mut begun) && !built_in() {
            let cause = "this kernel has no such module, or one that it needs is missing";
            return Err(WorldError::unusable(format!("module {name}"), cause, "see modules.dep for what there is"));
        }
    }
    Ok(order)
}

fn load_one(folder: &Path, file: &str) -> Result<Module> {
    let unusable = |cause: &str| WorldError::unusable(file, cause, "remove target/world/kernel and run inwit-setup");
    if !Path::new(file).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(unusable("the name leads out of the modules' folder"));
    }
    let path = folder.join(file);
    let bytes = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => Call::to("xz")?.args(["-dc", "--"]).arg(&path).run()?,
        _ => fs::read(&path).map_err(WorldError::file("read", &path))?,
    };
    if !bytes.starts_with(b"\x7fELF") {
        return Err(unusable("not an ELF file once decompressed"));
    }
    Ok(Module { name: stem(file).to_owned(), bytes })
}

fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split_once(".ko").map_or(name, |(stem, _)| stem)
}

fn kernel_name(file: &str) -> String {
    stem(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "net/c.ko.xz: net/b.ko.xz net/a.ko.xz\nnet/b.ko.xz: net/a.ko.xz\nnet/a.ko.xz:\n\
                          md/dm-crypt.ko.xz: md/dm-mod.ko.xz\nmd/dm-mod.ko.xz:\nx/p.ko: x/q.ko\nx/q.ko: x/p.ko\ny/lost.ko: y/gone.ko\n";
    const BUILTIN: &str = "kernel/fs/fuse/fuse.ko\n";

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let files = order(LISTED, BUILTIN, &["c", "dm_crypt", "b", "fuse", "dm-mod"]).unwrap();
        assert_eq!(files, ["net/a.ko.xz", "net/b.ko.xz", "net/c.ko.xz", "md/dm-mod.ko.xz", "md/dm-crypt.ko.xz"]);
    }

    #[test]
    fn unknown_names_and_missing_needs_are_refused_and_loops_end() {
        assert!(order(LISTED, BUILTIN, &["nothing"]).is_err());
        assert!(order(LISTED, BUILTIN, &["lost"]).is_err());
        assert_eq!(order(LISTED, BUILTIN, &["p"]).unwrap().len(), 2);
    }

    #[test]
    fn a_listed_name_cannot_lead_out_of_the_folder() {
        assert!(load_one(Path::new("/tmp"), "../etc/passwd").is_err());
        assert!(load_one(Path::new("/tmp"), "/etc/passwd").is_err());
    }
}
