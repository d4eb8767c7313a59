# Short names for what is done often. Each recipe is plain shell: without `just`, type its lines. From the root.

set shell := ["bash", "-euo", "pipefail", "-c"]

crates := "inwit-protocol inwit-guest inwit-shim inwit-measurements inwit-image inwit-authority inwit-relying-party inwit-tests"
guest := "target/x86_64-unknown-linux-musl/guest/inwit-guest"

# the recipes
default:
    @just --list --unsorted

# everything that must pass before a change is merged
check: lint docs test

# every test, virtual machines included; prepares the machine first
test *ARGUMENTS:
    cargo check-all {{ARGUMENTS}}

# a real VM does the main job while you watch
demo *ARGUMENTS:
    cargo demo {{ARGUMENTS}}

# formatting, then clippy crate by crate: together, their features would be unified
lint:
    cargo fmt --all --check
    rustfmt --check --edition 2024 tests/fuzz/src/*.rs tests/fuzz/fuzz_targets/*.rs tests/beside/benches/*.rs
    for crate in {{crates}}; do cargo clippy --quiet --locked --package "$crate" --all-targets -- -D warnings; done

# documentation of every crate
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --workspace --no-deps --lib

# both dependency policies with the advisories; needs cargo-deny and the network
deny:
    cargo deny --workspace check
    cargo deny --manifest-path guest/Cargo.toml check --config guest/deny.toml

# what the workload has to trust: crates, lines of source, bytes of the binary
tcb:
    cargo tree --locked --package inwit-guest --edges normal --target x86_64-unknown-linux-musl --prefix none | sed 's/ (\*)$//' | sort -u
    cargo test --quiet --locked --package inwit-tests --test tcb
    cargo guest --quiet --locked
    stat --printf '%n: %s bytes\n' {{guest}}

# the trusted binary and an archive around it, built twice in different folders: the same bytes
repro:
    #!/usr/bin/env bash
    set -euo pipefail
    unset CARGO_TARGET_DIR
    # Outside of this folder: cargo would join the configuration of a copy with the one here.
    folder=$(mktemp --directory)
    trap 'rm -rf "$folder"' EXIT
    git ls-files -z | tar --create --file "$folder/source.tar" --null --files-from -
    for copy in "$folder/one" "$folder/another/one"; do
        mkdir -p "$copy"
        tar --extract --file "$folder/source.tar" --directory "$copy"
        cd "$copy"
        cargo guest --quiet --locked
        printf 'dir /dev 0755\nnode /dev/console 0600 c 5 1\nfile /init 0755 {{guest}}\n' > image.manifest
        cargo run --quiet --locked --package inwit-image -- build image.manifest --output image.cpio
        sha256sum {{guest}} image.cpio
        cd - > /dev/null
    done
    cmp "$folder"/{one,another/one}/{{guest}}
    cmp "$folder"/{one,another/one}/image.cpio
    cargo test --quiet --locked --package inwit-tests --test image

# fuzz targets, all or those named, 60 s each (`just fuzz --help`, `just fuzz --list`); the pinned compiler is enough
fuzz *ARGUMENTS:
    cargo run --quiet --locked --package inwit-tests --bin inwit-fuzz -- {{ARGUMENTS}}

# SNP verification and launch digests beside the `sev` crate, outside of the workspace because of what that crate brings
bench-beside *ARGUMENTS:
    cp Cargo.lock tests/beside/Cargo.lock
    cd tests/beside; cargo bench --target-dir ../../target/beside --bench '*' {{ARGUMENTS}}

# every benchmark; numbers are printed, nothing is judged
bench *ARGUMENTS:
    cargo bench --locked --workspace --bench '*' {{ARGUMENTS}}
