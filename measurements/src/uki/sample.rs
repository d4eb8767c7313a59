//! A small unified kernel image for tests; never part of the product.

/// The list of names of a build of systemd-stub 252, and what follows it there.
pub(crate) const NAMES_252: &[u8] = b"\0.linux\0.osrel\0.cmdline\0.initrd\0.splash\0.dtb\0.pcrsig\0.pcrpkey\0\0\0x";
/// The list of 262.
pub(crate) const NAMES_262: &[u8] = b"\0.linux\0.osrel\0.cmdline\0.initrd\0.ucode\0.splash\0.dtb\0.uname\0.sbat\0.pcrsig\0.pcrpkey\0.profile\0.dtbauto\0.hwids\0.efifw\0.compat\0x";

/// The stub's own sections.
pub(crate) fn stub(version: &str, names: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mark = format!("#### LoaderInfo: systemd-stub {version} ####\0");
    vec![(".text", b"code".to_vec()), (".data", names.to_vec()), (".sdmagic", mark.into_bytes())]
}

/// A PE32+ image of these sections: headers of 0x1000 bytes, PE header at 0x40, each section on its own pages in memory
/// and in the file. The table begins at [`TABLE`].
pub(crate) fn image(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut image = vec![0; 0x1000];
    let put = |image: &mut Vec<u8>, at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(&mut image, 0, b"MZ");
    put(&mut image, 0x3c, &[0x40]);
    put(&mut image, 0x40, b"PE\0\0\x64\x86");
    put(&mut image, 0x46, &(sections.len() as u16).to_le_bytes());
    put(&mut image, 0x54, &160u16.to_le_bytes()); // optional header: 112 and six directories
    put(&mut image, 0x58, &0x20bu16.to_le_bytes());
    put(&mut image, 0x58 + 60, &0x1000u32.to_le_bytes());
    put(&mut image, 0x58 + 108, &6u32.to_le_bytes());
    for (number, (name, contents)) in sections.iter().enumerate() {
        let (at, size) = (image.len() as u32, contents.len() as u32);
        let numbers = [size, at, size, at].map(u32::to_le_bytes).concat();
        put(&mut image, TABLE + number * 40, name.as_bytes());
        put(&mut image, TABLE + number * 40 + 8, &numbers);
        image.extend(contents);
        image.resize(image.len().next_multiple_of(0x1000), 0);
    }
    image
}

/// Where [`image`] has its section table: 40 bytes a section, of which name 8, virtual size, virtual address, raw size,
/// raw offset.
pub(crate) const TABLE: usize = 0x40 + 24 + 160;
