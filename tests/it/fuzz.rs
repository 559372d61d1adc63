//! Damaged input files: nothing may panic, nothing may take long, and each refusal must name the place.
//!
//! `RINGFENCE_FUZZ_SECONDS` (default 10) is the duration, `RINGFENCE_FUZZ_SEED` (default 7) selects the inputs.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use jiff::civil::date;
use ringfence::engine::clock::Clock;
use ringfence::run::check::{Document, Documents, Judge};
use ringfence::sandbox::Script;
use ringfence::spec::{self, LoadOptions};
use ringfence::template::Templates;
use serde_json::{Value, json};

const SEEDS: [&str; 11] = [
    include_str!("../../examples/three-tiers/tenancy.yaml"),
    include_str!("../../examples/single-silo/tenancy.yaml"),
    include_str!("../../examples/regulated/tenancy.yaml"),
    include_str!("../../examples/two-pools/tenancy.yaml"),
    include_str!("../../examples/pool-of-twenty/tenancy.yaml"),
    include_str!("../../examples/gateway/tenancy.yaml"),
    include_str!("corpus/aliases.yaml"),
    include_str!("corpus/itself.yaml"),
    include_str!("corpus/faults.yaml"),
    include_str!("corpus/rich.yaml"),
    include_str!("corpus/manifests.yaml"),
];

const TOKENS: [&str; 52] = [
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "? ",
    ", ",
    "\n",
    "\r\n",
    "\r",
    "\t",
    " ",
    "  ",
    "\"",
    "'",
    "|",
    "|9-\n",
    ">+\n",
    "#",
    " #",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "%TAG ! x\n",
    "&a ",
    "*a",
    "*b ",
    "<<: *a",
    "<<: ",
    "!!binary ",
    "!!str ",
    "!x ",
    "~",
    "null",
    ".inf",
    ".nan",
    "-0",
    "1e999",
    "99999999999999999999",
    "0x1F",
    "2027-02-30",
    "10.0.0.0/0",
    "255.255.255.255/33",
    "\0",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\u{202e}",
    "é\u{301}",
    "😀",
    "\u{1b}[2J",
];

/// Limit of processor time. Real time wouldn't do, because tests share the processor.
const LIMIT: Duration = Duration::from_secs(2);
/// Limit of real time, for an input that never ends.
const HANGS: Duration = Duration::from_secs(60);

/// SplitMix64 random numbers: the number of an input reproduces it.
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % (n.max(1) as u64)) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

fn input(dice: &mut Dice) -> String {
    let mut text = dice.one(&SEEDS).to_owned();
    for _ in 0..=dice.below(6) {
        text = match dice.below(3) {
            0 => bytes(dice, text),
            1 => lines(dice, &text),
            _ => tokens(dice, &text),
        };
    }
    text
}

fn bytes(dice: &mut Dice, text: String) -> String {
    let mut bytes = text.into_bytes();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match (dice.below(4), bytes.get_mut(at)) {
            (0, Some(byte)) => *byte ^= 1 << dice.below(8),
            (1, Some(byte)) => *byte = dice.next().to_le_bytes()[0],
            (2, Some(_)) => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn lines(dice: &mut Dice, text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let (from, to) = (dice.below(lines.len()), dice.below(lines.len()));
    match dice.below(6) {
        _ if lines.is_empty() => lines.extend(dice.one(&SEEDS).lines().map(str::to_owned)),
        0 => drop(lines.remove(from)),
        1 => lines.swap(from, to),
        2 => lines.insert(to, lines[from].clone()),
        3 => lines[from].insert_str(0, &" ".repeat(dice.below(9))),
        4 => lines[from] = lines[from].trim_start().to_owned(),
        _ => {
            let others: Vec<&str> = dice.one(&SEEDS).lines().collect();
            lines.insert(to, dice.one(&others).to_owned());
        }
    }
    lines.join("\n")
}

fn tokens(dice: &mut Dice, text: &str) -> String {
    let words: Vec<&str> = text.split_inclusive([' ', '\n', ':', ',', '[', ']', '{', '}', '"', '/']).collect();
    let at = dice.below(words.len());
    // Recursion fails at great depth, and copying at great length.
    let times = if dice.below(20) == 0 { 1 << dice.below(14) } else { 1 };
    let put = match dice.below(3) {
        0 => {
            let words = words_of(dice);
            dice.one(&words).repeat(times)
        }
        1 => String::new(),
        _ => dice.one(&TOKENS).repeat(times),
    };
    let rest = at + dice.below(2);
    words.iter().take(at).copied().chain([put.as_str()]).chain(words.iter().skip(rest).copied()).collect()
}

fn words_of(dice: &mut Dice) -> Vec<&'static str> {
    dice.one(&SEEDS).split_inclusive([' ', '\n']).collect()
}

/// Tries the text as a spec. True if it was accepted.
fn try_spec(text: &str) -> bool {
    let options = LoadOptions { profiles_dir: None, today: date(2026, 11, 23) };
    let errors = match spec::load(Path::new("tenancy.yaml"), text, &options) {
        Ok(spec) => {
            assert_eq!(spec::digest(&spec).len(), 64);
            return true;
        }
        Err(errors) => errors,
    };
    assert!(!errors.0.is_empty());
    let lines = text.split(['\n', '\r']).count();
    for error in &errors.0 {
        let whole = error.message == "the file is empty" || error.message.starts_with("the file has more than");
        assert!(whole || error.at.line > 0, "no position: {error}");
        assert!(error.at.line <= lines && error.at.text_column <= error.at.text.chars().count() + 1, "{error}");
    }
    assert!(!errors.to_string().is_empty());
    false
}

fn try_script(text: &str) -> bool {
    match Script::parse(text) {
        Ok(_) => true,
        Err(why) => {
            assert!(["line ", "fault ", "lag: "].iter().any(|place| why.contains(place)), "no position: {why}");
            false
        }
    }
}

/// Tries the text as a tenant's manifests. True if objects were found.
fn try_manifests(judge: &Judge, text: &str) -> bool {
    match Documents::of("<stdin>", text) {
        Ok(documents) => {
            for document in &documents.found {
                let checked = judge.check(document);
                assert!(checked.decorated.is_some() == checked.refusals.is_empty(), "neither admitted nor refused");
            }
            true
        }
        Err(error) => {
            let placed = error.message.contains("<stdin>:") || error.message.contains("there is no Kubernetes object");
            assert!(placed && error.help.is_some(), "no position: {error}");
            false
        }
    }
}

/// What judges the manifests of a pool tenant.
fn judge() -> Judge {
    let options = LoadOptions { profiles_dir: None, today: date(2026, 11, 23) };
    let spec = spec::load(Path::new("tenancy.yaml"), SEEDS[0], &options).unwrap();
    Judge::of(&spec, &Templates::built_in().unwrap(), "23456", true).unwrap()
}

/// Puts odd values anywhere into an object.
fn odd(dice: &mut Dice, value: &mut Value) {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("*"),
        json!("\u{0}\n\"'"),
        json!([]),
        json!({}),
        json!([null]),
        json!({"": {"": []}}),
        json!({"name": [1]}),
        json!([[[[[]]]]]),
        json!("x".repeat(5000)),
    ];
    let mut inner = value;
    loop {
        let size = match &inner {
            Value::Object(fields) => fields.len(),
            Value::Array(items) => items.len(),
            _ => 0,
        };
        if size == 0 || dice.below(6) == 0 {
            *inner = odd[dice.below(odd.len())].clone();
            return;
        }
        let at = dice.below(size);
        let next = match inner {
            Value::Object(fields) => fields.values_mut().nth(at),
            Value::Array(items) => items.get_mut(at),
            _ => return,
        };
        let Some(next) = next else { return };
        inner = next;
    }
}

#[test]
fn odd_objects_are_admitted_or_refused() {
    let judge = judge();
    let seeds = Documents::of("<stdin>", include_str!("corpus/manifests.yaml")).unwrap().found;
    let mut dice = Dice(7);
    let (mut admitted, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut document: Document = seeds[dice.below(seeds.len())].clone();
        for _ in 0..=dice.below(3) {
            odd(&mut dice, &mut document.object);
        }
        match judge.check(&document).refusals.is_empty() {
            true => admitted += 1,
            false => refused += 1,
        }
    }
    assert!(admitted > 500 && refused > 5_000, "{admitted} admitted, {refused} refused");
}

/// The processor time of this thread, if the system tells it (proc(5), `schedstat`).
fn processor() -> Option<Duration> {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(said.split(' ').next()?.parse().ok()?))
}

/// Tries all uses of the text. The error says what went wrong.
fn survives(judge: &Judge, text: &str) -> Result<[bool; 3], String> {
    let begun = processor();
    let tried = catch_unwind(AssertUnwindSafe(|| [try_spec(text), try_script(text), try_manifests(judge, text)]))
        .map_err(|why| why.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked".to_owned()))?;
    match processor().zip(begun).map(|(now, begun)| now.saturating_sub(begun)) {
        Some(took) if took > LIMIT => Err(format!("it took {took:?} of the processor")),
        _ => Ok(tried),
    }
}

#[test]
fn what_was_found_once_and_what_is_kept() {
    let judge = judge();
    for text in SEEDS {
        survives(&judge, text).unwrap_or_else(|why| panic!("{why}: {text}"));
    }
}

#[test]
fn damaged_specs_fault_scripts_and_manifests() {
    let said = |name: &str, or: u64| std::env::var(name).map_or(or, |text| text.parse().unwrap());
    let seed = said("RINGFENCE_FUZZ_SEED", 7);
    let time = Duration::from_secs(said("RINGFENCE_FUZZ_SECONDS", 10));
    let (told, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let clock = Clock::real();
        let judge = judge();
        for n in 0u64.. {
            if clock.wall() > time {
                return;
            }
            let text = input(&mut Dice(seed.wrapping_add(n.wrapping_mul(0x2545_f491_4f6c_dd1d))));
            let (_, length) = (told.send((n, text.clone(), None)), text.len());
            let found = survives(&judge, &text);
            let _gone = told.send((n, text, Some((length, found))));
        }
    });
    let (mut tried, mut accepted, mut longest) = (0u64, [0u64; 3], 0);
    let mut findings = Vec::new();
    let mut current = None;
    loop {
        match heard.recv_timeout(HANGS) {
            Ok((n, text, None)) => current = Some((n, text)),
            Ok((n, text, Some((length, found)))) => {
                tried += 1;
                longest = longest.max(length);
                match found {
                    Ok(uses) => accepted.iter_mut().zip(uses).for_each(|(sum, one)| *sum += u64::from(one)),
                    Err(why) => findings.push(format!("input {n} of seed {seed}: {why}\n{text:?}")),
                }
                if tried.is_power_of_two() || tried.is_multiple_of(100_000) {
                    let _shown =
                        writeln!(std::io::stderr(), "{tried} inputs of seed {seed}, {} findings", findings.len());
                }
            }
            Err(RecvTimeoutError::Timeout) => panic!("it hangs on {current:?} of seed {seed}"),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let sum = format!(
        "{tried} inputs of seed {seed} in {time:?}, accepted as specs, scripts, manifests: {accepted:?}, longest {longest} \
         bytes, {} findings",
        findings.len()
    );
    let _shown = writeln!(std::io::stderr(), "{sum}");
    assert!(findings.is_empty(), "{sum}\n{}", findings.iter().take(20).cloned().collect::<Vec<_>>().join("\n"));
    assert!(tried > 20, "too little was tried: {sum}");
}
