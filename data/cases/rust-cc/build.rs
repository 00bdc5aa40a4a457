//! Compiles the C library that the environment names, as crates do that bring an allocator.

use std::env;
use std::path::PathBuf;

fn main() {
    let source = PathBuf::from(env::var("C_SOURCE").expect("C_SOURCE: the C file"));
    let folder = PathBuf::from(env::var("C_FOLDER").expect("C_FOLDER: where -I is relative to"));
    let mut build = cc::Build::new();
    let told = env::var_os("C_WARNINGS").is_some(); // else they are not ours to read
    for flag in env::var("C_FLAGS").unwrap_or_default().lines() {
        if told && flag == "-w" {
            continue;
        }
        match flag.strip_prefix("-I") {
            Some(include) => build.include(folder.join(include)),
            None => build.flag(flag),
        };
    }
    if let Ok(define) = env::var("C_DEFINE") {
        let (name, value) = define.split_once('=').unwrap_or((&define, "1"));
        build.define(name, value);
    }
    build.file(folder.join(source)).compile("below");
    let allocator = env::var("ALLOCATOR").expect("ALLOCATOR: as main.rs has it");
    println!("cargo:rustc-check-cfg=cfg(allocator, values(any()))");
    println!("cargo:rustc-check-cfg=cfg(never_free)");
    println!("cargo:rustc-cfg=allocator=\"{allocator}\"");
}
