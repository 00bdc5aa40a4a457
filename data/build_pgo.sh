#!/usr/bin/env bash
# usage: build_pgo.sh [options] -- TRAINING COMMAND...
#
# Build this folder's cargo project instrumented, train it, check the profile, build it optimized,
# and print the path of the result. The training command is run once, its standard output discarded;
# it must exit with 0. A word {} in it becomes the path of the instrumented binary, which is in
# $PGO_BIN too: for several runs, give a script that runs "$PGO_BIN".
#
#   --bin NAME, --example NAME, --lib   what to build (default: the only binary; --lib: a cdylib)
#   --cargo-arg ARG     one more argument of cargo build (--features=x, --offline); repeatable
#   --out DIR           where to work: new, empty, or of an earlier run (default: target/pgo)
#   --cc CC             the C compiler (default: CC, as the cc crate finds it)
#   --instrument-c      instrument C too, only by a clang of rustc's raw profile version; C++, and
#                       C without this option, get -fno-profile-generate -fno-profile-use
#   --profdata PATH     llvm-profdata (default: rustc's own, PATH, Homebrew's, Xcode's)
#   --dry-run           print the commands; run only those that ask for versions
#
# RUSTFLAGS or CARGO_ENCODED_RUSTFLAGS, and CFLAGS and CXXFLAGS by all their names, are kept and
# appended to. Exit codes: 0 done, 1 a tool is missing or does not match, 2 usage or settings,
# 3 a build failed, 4 the training failed, 5 a profile is not whole, 130 Ctrl-C.

# Runs in bash 3.2 and later, with GNU's and BSD's tools.
set -euo pipefail

say() { printf 'build_pgo: %s\n' "$*" >&2; }
die() { say "$2" && exit "$1"; } # CODE, MESSAGE
exec 3>&1
run() { if [[ $dry ]]; then { printf '%q ' "$@" && echo; } >&3; else "$@" 3>&-; fi; }

first_line() { awk 'NF && !n++'; } # reads to the end: no SIGPIPE for the writer

parse() {
	built='{}' dry='' out='' cc='' profdata='' instrument_c='' guarded='CFLAGS CXXFLAGS' what=() more=()
	local valued='^--(bin|example|out|cc|profdata|cargo-arg)$'
	while [[ $# -gt 0 && $1 != -- ]]; do
		[[ ! $1 =~ $valued || (-n ${2:-} && $2 != --) ]] || die 2 "$1 needs a value; see --help"
		case $1 in
		-h | --help) sed -n '1d;/^$/q;s/^# \{0,1\}//;p' "$0" && exit ;;
		--dry-run) dry=1 ;;
		--instrument-c) instrument_c=1 guarded=CXXFLAGS ;;
		--lib) what=(--lib) ;;
		--bin | --example) what=("$1" "$2") && shift ;;
		--out) out=$2 && shift ;;
		--cc) cc=$2 && shift ;;
		--profdata) profdata=$2 && shift ;;
		--cargo-arg) more+=("$2") && shift ;;
		*) die 2 "$1: no such option (the training command comes after --); see --help" ;;
		esac
		shift
	done
	[[ $# -ge 2 ]] || die 2 "no training command; give it after --, see --help"
	training=("${@:2}")
}

find_rust() {
	cargo=${CARGO:-cargo} rustc=${RUSTC:-rustc}
	local version manifest
	version=$("$rustc" -vV) || die 1 "$rustc: not found, or does not start; install Rust by rustup"
	llvm=$(printf '%s\n' "$version" | sed -n 's/^LLVM version: //p')
	target=$(printf '%s\n' "$version" | sed -n 's/^host: //p')
	[[ $llvm ]] || die 1 "$rustc: names no LLVM; use a rustc with LLVM"
	"$cargo" -V >/dev/null || die 1 "$cargo: not found, or does not start; install Rust by rustup"
	manifest=$("$cargo" locate-project --workspace --message-format plain) ||
		die 2 "no Cargo.toml; run this in the project's folder"
	lock=${manifest%/*}/Cargo.lock out=${out:-${manifest%/*}/target/pgo}
	[[ $out == /* ]] || out=$PWD/$out
	# LLVM_PROFILE_FILE gives % a meaning; cargo's messages are JSON.
	[[ $out != *[%\"\\]* ]] || die 2 "$out: has a % or \" or \\ in it; choose another --out"
	say "$(printf '%s\n' "$version" | first_line), LLVM $llvm, $target"
}

# Cargo takes flags from one place only, the environment first: refuse rather than lose others.
keep_flags() {
	local folder=$PWD file places names='CFLAGS|CXXFLAGS|rustflags'
	separator=$'\037' kept=$(printf '%s\n' "${RUSTFLAGS:-}" | awk -v OFS='\037' '{ $1 = $1 } 1')
	kept=${CARGO_ENCODED_RUSTFLAGS-$kept}
	[[ ! $kept =~ profile-(generate|use) ]] || die 2 'RUSTFLAGS has PGO flags already; remove them'
	if [[ ${CARGO_ENCODED_RUSTFLAGS+set}${RUSTFLAGS+set} ]]; then
		names='CFLAGS|CXXFLAGS'
	elif file=$(env | grep -E '^CARGO_(BUILD|TARGET_[^=]*)_RUSTFLAGS='); then
		die 2 "$file would be lost; put it into RUSTFLAGS"
	fi
	places=("${CARGO_HOME:-$HOME/.cargo}"/config{,.toml})
	while places+=("$folder"/.cargo/config{,.toml}) && [[ $folder ]]; do folder=${folder%/*}; done
	file=$(grep -Els "^[^#]*($names)" "${places[@]}" | first_line) || :
	[[ ! $file ]] || die 2 "$file: has $names; move them to the environment (RUSTFLAGS, CFLAGS)"
}

# The cc crate's names of a setting when host is target, best first (its target_envs).
names_of() { printf '%s\n' "$1_$target" "$1_${target//[-.]/_}" "HOST_$1" "$1"; }

# __llvm_profile_raw_version in LLVM's text: the raw version, with variants in the high bits.
raw_version() { sed -n 's/^@__llvm_profile_raw_version = .* i64 \(-*[0-9]*\).*/\1/p' | grep .; }

# The version of a cc crate that hands flags on and puts CFLAGS before them, where they cure nothing
# (rust-lang/cc-rs, pull requests 1279 and 1403).
cflags_first() {
	[[ ! -f $lock ]] || awk -F '[".]' '/^name = / { cc = $2 == "cc" && NF == 3 }
		cc && /^version = "1\.2\./ && $4 >= 2 && $4 < 16 { print $2 "." $3 "." $4 }' "$lock" | first_line
}

# The cc crate hands -Cprofile-generate and -Cprofile-use on to clang, then adds CFLAGS: the last
# wins. So these flags keep C out of a profile whose record layout may be another.
guard_c() {
	local name language value kind theirs ours first
	local advice="--cc a clang of LLVM ${llvm%%.*}, or leave out --instrument-c"
	settings=(${cc:+"CC=$cc" "CC_$target=$cc"})
	for name in $(names_of CC); do cc=${cc:-$(printenv "$name" || :)}; done
	cc=${cc:-cc}
	kind="$cc ($("$cc" --version 2>/dev/null | first_line))" || kind="$cc (does not start)"
	for language in $guarded; do
		for name in $(names_of "$language"); do
			value=$(printenv "$name") || [[ $name == "$language" ]] || continue
			settings+=("$name=${value:+$value }-fno-profile-generate -fno-profile-use")
		done
	done
	first=$(cflags_first)
	[[ $instrument_c || ! $first || $kind != *clang* ]] ||
		die 1 "$kind: cc $first puts CFLAGS first, so they leave no C out; cargo update -p cc, or --cc gcc"
	[[ $kind == *clang* ]] || kind="$kind: no clang, so cc 1.2.9 and later hand on nothing"
	[[ $instrument_c ]] || { say "C: $kind: not instrumented (-fno-profile-generate)" && return; }
	theirs=$(echo 'int main(void) { return 0; }' | "$cc" -x c -S -emit-llvm -fprofile-generate -o - - \
		2>/dev/null | raw_version) || die 1 "$kind; $advice"
	ours=$(echo 'fn main() {}' | "$rustc" --emit=llvm-ir -Cprofile-generate -o - - | raw_version) ||
		die 1 "$rustc: cannot instrument (see above); use rustup's"
	settings+=("CC_$target=$cc")
	[[ $theirs == "$ours" ]] ||
		die 1 "$kind: raw profile version $((theirs & 0xffffffff)), rustc's is $((ours & 0xffffffff)): the program would crash; $advice"
	say "C: $kind: instrumented, raw profile version $((ours & 0xffffffff)) as rustc's; C++: not"
}

open_out() {
	raw=$out/raw profile=$out/merged.profdata temporary=$out/tmp small=$out/tmp/small
	[[ ! $dry ]] || return 0
	[[ ! -e $out || -e $out/.build_pgo || (-d $out && -z $(ls -A "$out")) ]] ||
		die 2 "$out: not empty and not of an earlier run; choose another --out"
	mkdir -p "$out" && touch "$out/.build_pgo"
	trap 'rm -rf "$temporary"' EXIT
	trap 'exit 130' INT TERM
	rm -rf "$raw" "$temporary" && mkdir "$raw" "$temporary"
}

# Whether a small profile of this rustc gets through an llvm-profdata and back. Version numbers do
# not say it: a raw profile is read by LLVMs of its raw version only (RawInstrProfReader), a
# merged one by those that know its version (IndexedInstrProfReader); and Apple's are not LLVM's.
rehearse() { # PROFDATA
	"$1" merge --failure-mode=any -o "$small.profdata" "$small.profraw" || return
	# Of a profile that it cannot read, rustc only warns.
	! "$rustc" "-Cprofile-use=$small.profdata" -o "$small" "$small.rs" 2>&1 | grep . || return
	[[ ! $instrument_c ]] || echo 'int main(void) { return 0; }' |
		"$cc" -x c -c "-fprofile-use=$small.profdata" -o "$small" -
}

find_profdata() {
	local candidate why='none found' candidates=("$profdata")
	[[ $profdata ]] || candidates=("$("$rustc" --print sysroot)"/lib/rustlib/*/bin/llvm-profdata
		"llvm-profdata-${llvm%%.*}" llvm-profdata {/opt/homebrew,/usr/local}/opt/llvm*/bin/llvm-profdata
		"$(xcrun -f llvm-profdata 2>/dev/null || :)")
	[[ $dry ]] || {
		echo 'fn main() {}' >"$small.rs" && "$rustc" -Cprofile-generate -o "$small" "$small.rs" &&
			LLVM_PROFILE_FILE="$small.profraw" "$small"
	} || die 1 "$rustc: cannot build and run an instrumented program (see above); use rustup's"
	for candidate in "${candidates[@]}"; do
		profdata=$(command -v "$candidate") || continue
		if [[ $dry ]] || why=$(rehearse "$profdata" 2>&1); then
			say "$profdata: $("$profdata" --version 2>&1 | sed -n 's/.*\(LLVM version\)/\1/p')"
			return
		fi
		why="$profdata does not fit: $(printf '%s\n' "$why" | first_line)"
	done
	die 1 "no llvm-profdata for LLVM $llvm ($why); rustup component add llvm-tools, or --profdata"
}

build() { # FOLDER, FLAG: sets `built`
	local messages=$temporary/messages field='"executable":"([^"]*)"'
	# From nothing: cargo and build scripts do not see a new profile of the same name, or new CFLAGS.
	if [[ $dry ]]; then messages=/dev/null; else rm -rf "${out:?}/$1"; fi
	# --target, even the host's own: so the flags are not for build scripts and macros.
	run env "${settings[@]}" "CARGO_ENCODED_RUSTFLAGS=${kept:+$kept$separator}$2" \
		"$cargo" build --release --target "$target" --target-dir "$out/$1" \
		${what[@]+"${what[@]}"} ${more[@]+"${more[@]}"} \
		--message-format=json-render-diagnostics >"$messages" || die 3 "the $1 build failed (see above)"
	[[ ! $dry ]] || return 0
	[[ ${what[0]:-} != --lib ]] || field='"cdylib".*"([^"]*\.(so|dylib))"'
	built=$(sed -nE "s/.*$field.*/\1/p" "$messages" | sort -u)
	[[ $built && $built != *$'\n'* ]] ||
		die 2 "not one binary but: ${built:-none}; choose by --bin, --example or --lib"
	say "$1: $built ($(($(wc -c <"$built"))) bytes)"
}

train() {
	local command=() word status=0 empty
	for word in "${training[@]}"; do
		[[ $word != '{}' ]] || word=$built
		command+=("$word")
	done
	# %p: one file per process, so that one that died shows; %m: and one per image in it.
	run env "PGO_BIN=$built" "LLVM_PROFILE_FILE=$raw/%p-%m.profraw" "${command[@]}" \
		>/dev/null || status=$?
	[[ $status -ne 130 ]] || exit 130
	[[ $status -le 128 || $status -ge 192 ]] ||
		die 4 "the training died of SIG$(kill -l $((status - 128))); if it lives without instrumentation, it may hold C of another LLVM that CFLAGS did not reach; pgo-lab rescue -o FILE -- the same command keeps its profile"
	[[ $status -eq 0 ]] || die 4 "the training ended with exit code $status, not 0"
	[[ ! $dry ]] || return 0
	[[ $(find "$raw" -type f) ]] || die 4 'the training wrote no profile; it must run the binary to its end'
	# llvm-profdata leaves these out without a word.
	empty=$(find "$raw" -type f -size 0 | first_line)
	[[ ! $empty ]] || die 5 "$empty: empty: its process died or could not write it (see above)"
}

merge() {
	local said functions
	said=$(run "$profdata" merge --failure-mode=any -o "$profile" "$raw" 2>&1) || die 5 "$said"
	[[ ! $dry ]] || return 0
	functions=$("$profdata" show "$profile" | sed -n 's/^Total functions: //p')
	[[ ${functions:-0} -gt 0 ]] || die 5 "$profile: no function in it"
	say "$profile: $functions functions, $(($(wc -c <"$profile"))) bytes"
}

parse "$@"
find_rust
keep_flags
guard_c
open_out
find_profdata
build instrumented "-Cprofile-generate=$raw"
train
merge
build optimized "-Cprofile-use=$profile"
[[ $dry ]] || printf '%s\n' "$built"
