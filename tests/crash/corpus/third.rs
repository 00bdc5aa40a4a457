//! A crate with a C part, and its tests.
extern "C" {
    fn library_step(round: u32) -> u32;
}

pub fn step(round: u32) -> u32 {
    unsafe { library_step(round) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_step_is_a_number() {
        assert!(super::step(3) < u32::MAX);
    }
    #[test]
    #[cfg(merges)]
    fn profiles_are_merged() {
        let out = std::process::Command::new(env!("PROFDATA"))
            .args(["merge", "-o", "all.profdata", "old.profraw"])
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "llvm-profdata: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    #[test]
    fn two_steps_differ() {
        assert_ne!(2 + 2, 5);
    }
}
