//! Written files: a pipe, device or link at the path stays what it is.

use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};

use super::*;

/// Makes `file` with this tool. The file is always in the test's own directory,
/// so that a faulty program can't damage the machine's devices.
fn node(tool: &str, file: &Path, args: &[&str]) {
    assert!(Command::new(tool).arg(file).args(args).status().unwrap().success(), "{tool}");
}

/// True if the bytes are a complete saved plan.
fn is_plan(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes)
        .is_ok_and(|plan| text(&plan["schema"]).starts_with("ringfence.dev/saved-plan/"))
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_plan_is_written_through_a_link() {
    let estate = Estate::new(&SINGLE_SILO);
    fs::create_dir(estate.path().join("there")).unwrap();
    let real = estate.path().join("there/real");
    fs::write(&real, "old").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    let mine = fs::metadata(&real).unwrap();
    // Another owner, if the test runs as root and can set one.
    let owner = if mine.uid() == 0 { (4321, 1234) } else { (mine.uid(), mine.gid()) };
    chown(&real, Some(owner.0), Some(owner.1)).unwrap();
    symlink("there/real", estate.path().join("one")).unwrap();
    symlink("one", estate.path().join("two")).unwrap();
    symlink("there/new", estate.path().join("nowhere")).unwrap();
    for (out, file) in [("two", "there/real"), ("nowhere", "there/new"), ("p", "p")] {
        estate.run(&["plan", "--out", out]).exits(0);
        assert!(is_plan(&fs::read(estate.path().join(file)).unwrap()), "{out}");
    }
    for link in ["one", "two", "nowhere"] {
        assert!(fs::symlink_metadata(estate.path().join(link)).unwrap().is_symlink(), "{link}");
    }
    let now = fs::metadata(&real).unwrap();
    assert_eq!((now.mode() & 0o7777, (now.uid(), now.gid())), (0o640, owner));
    assert_eq!(names(&estate.path().join("there")), ["new", "real"].map(str::to_owned).into());
    estate.run(&["apply", "two"]).exits(0);
}

#[test]
fn links_in_a_circle_are_an_error() {
    let estate = Estate::new(&SINGLE_SILO);
    symlink("b", estate.path().join("a")).unwrap();
    symlink("a", estate.path().join("b")).unwrap();
    estate.run(&["plan", "--out", "a"]).refuses(&["the plan a can't be written"]);
}

#[test]
fn a_plan_goes_into_a_pipe() {
    let estate = Estate::new(&SINGLE_SILO);
    let pipe = estate.path().join("pipe");
    node("mkfifo", &pipe, &[]);
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::read(pipe).unwrap())
    };
    estate.run(&["plan", "--out", "pipe"]).exits(0);
    // A reader that got nothing still waits for a writer.
    drop(fs::File::options().read(true).write(true).open(&pipe).unwrap());
    assert!(is_plan(&reader.join().unwrap()));
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
}

#[test]
fn a_plan_goes_into_a_device() {
    let estate = Estate::new(&SINGLE_SILO);
    for (name, minor, code) in [("null", "3", 0), ("full", "7", 1)] {
        let device = estate.path().join(name);
        node("mknod", &device, &["c", "1", minor]);
        symlink(name, estate.path().join(format!("to-{name}"))).unwrap();
        for out in [name.to_owned(), format!("to-{name}")] {
            let run = estate.run(&["plan", "--out", &out]).exits(code);
            assert!(code == 0 || run.err.contains("No space left on device"), "{}", run.err);
            assert!(fs::symlink_metadata(&device).unwrap().file_type().is_char_device());
        }
    }
    let all = ["full", "null", "sandbox", "tenancy.yaml", "to-full", "to-null"];
    assert_eq!(names(estate.path()), all.map(str::to_owned).into());
}

/// A link to the process's own stdout, as `/dev/stdout` is.
#[test]
fn a_plan_goes_to_stdout() {
    let estate = Estate::new(&SINGLE_SILO);
    symlink("/proc/self/fd/1", estate.path().join("stdout")).unwrap();
    let piped = estate.run(&["plan", "--out", "stdout"]).exits(0).out;
    let file = estate.path().join("log");
    fs::write(&file, "before\n").unwrap();
    for append in [false, true] {
        let mut log = fs::File::options().read(true).write(true).append(append).open(&file).unwrap();
        std::io::Seek::seek(&mut log, std::io::SeekFrom::End(0)).unwrap();
        let status = estate.command(&["plan", "--out", "stdout"]).stdout(log).status().unwrap();
        assert!(status.success());
    }
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text, format!("before\n{piped}{piped}"));
    assert!(is_plan(piped.split_inclusive("\n}").next().unwrap().as_bytes()), "{piped}");
    assert!(piped.contains("\nPlan: "), "{piped}");
    assert!(fs::symlink_metadata(estate.path().join("stdout")).unwrap().is_symlink());
}

/// Files of the user beside the plan, under any name.
#[test]
fn nothing_beside_a_plan_is_touched() {
    let estate = Estate::new(&SINGLE_SILO);
    for name in ["p.new", "p.tmp", ".p.new", "p~"] {
        fs::write(estate.path().join(name), "mine").unwrap();
    }
    estate.run(&["plan", "--out", "p"]).exits(0);
    for name in ["p.new", "p.tmp", ".p.new", "p~"] {
        assert_eq!(fs::read_to_string(estate.path().join(name)).unwrap(), "mine", "{name}");
    }
}

#[test]
fn a_kubeconfig_is_written_through_a_link() {
    let estate = Estate::applied(&SINGLE_SILO);
    symlink("real", estate.path().join("link")).unwrap();
    estate.run(&["kubeconfig", "--kubeconfig-file", "link"]).exits(0);
    assert!(fs::symlink_metadata(estate.path().join("link")).unwrap().is_symlink());
    let real = fs::metadata(estate.path().join("real")).unwrap();
    assert_eq!(real.mode() & 0o777, 0o600);

    let pipe = estate.path().join("pipe");
    node("mkfifo", &pipe, &[]);
    // Opens both ends, so that neither waits for the other.
    let mut ends = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    estate.run(&["kubeconfig", "--kubeconfig-file", "pipe"]).exits(0);
    let mut text = vec![0; 1 << 16];
    let length = ends.read(&mut text).unwrap();
    assert_eq!(text[..length], fs::read(estate.path().join("real")).unwrap());
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());

    node("mknod", &estate.path().join("full"), &["c", "1", "7"]);
    estate.run(&["kubeconfig", "--kubeconfig-file", "full"]).refuses(&["full can't be written", "No space left"]);
    assert!(fs::symlink_metadata(estate.path().join("full")).unwrap().file_type().is_char_device());
}

#[test]
fn a_sandbox_and_rendered_files_are_written_through_links() {
    let estate = Estate::new(&SINGLE_SILO);
    symlink("../kept", estate.state()).unwrap();
    estate.run(&["plan"]).exits(0);
    assert!(fs::symlink_metadata(estate.state()).unwrap().is_symlink());
    assert!(serde_json::from_slice::<Value>(&fs::read(estate.path().join("kept")).unwrap()).is_ok());

    estate.run(&["render", "--out", "rendered"]).exits(0);
    let dir = estate.path().join("rendered/tenant-globex");
    let first = dir.join(names(&dir).first().unwrap());
    let elsewhere = estate.path().join("elsewhere");
    fs::rename(&first, &elsewhere).unwrap();
    let text = fs::read(&elsewhere).unwrap();
    fs::write(&elsewhere, "old").unwrap();
    symlink(&elsewhere, &first).unwrap();
    estate.run(&["render", "--out", "rendered"]).exits(0);
    assert!(fs::symlink_metadata(&first).unwrap().is_symlink());
    assert_eq!(fs::read(&elsewhere).unwrap(), text);
}

fn all_below(dir: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(all_below(&entry.path()).into_iter().map(|below| format!("{name}/{below}"))),
            false => drop(all.insert(name)),
        }
    }
    all
}

/// Files of a tenant that left the spec must be removed from a GitOps
/// repository, and no other file.
#[test]
fn files_that_are_no_longer_rendered_are_deleted() {
    let estate = Estate::new(&THREE_TIERS);
    let out = estate.path().join("rendered");
    estate.run(&["render"]).exits(0);
    let all = all_below(&out);
    let of = |tenant: &str| -> Vec<String> {
        all.iter().filter(|f| f.starts_with(&format!("tenant-{tenant}/"))).cloned().collect()
    };
    assert!(all.contains(".ringfence-acme.sha256") && of("23456").len() > 5, "{all:?}");
    // `sha256sum` can read the list.
    let check = Command::new("sha256sum").args(["-c", "--quiet", ".ringfence-acme.sha256"]).current_dir(&out).status();
    assert!(check.unwrap().success());

    // Files of others beside ours, and one of our files that somebody changed.
    for mine in ["tenant-23456/mine.yaml", "mine.yaml", "tenant-34567/kustomization.yaml"] {
        fs::write(out.join(mine), "mine").unwrap();
    }
    let changed = &of("23456")[1].clone();
    fs::write(out.join(changed), "changed").unwrap();
    let other = THREE_TIERS.text().replacen("name: acme", "name: other", 1);
    fs::write(estate.path().join("other.yaml"), other).unwrap();
    estate.run(&["render", "-f", "other.yaml"]).exits(0);
    estate.run(&["render"]).exits(0);
    fs::write(out.join(changed), "changed").unwrap();

    let text = fs::read_to_string(estate.spec()).unwrap();
    let (start, end) = (text.find("    - id: \"23456\"").unwrap(), text.find("    - id: \"34567\"").unwrap());
    estate.write(&format!("{}{}", &text[..start], &text[end..]));
    let said = estate.run(&["render"]).exits(0).err;
    assert!(
        said.split_whitespace().collect::<Vec<_>>().join(" ").contains("was edited since it was rendered"),
        "{said}"
    );
    let left = all_below(&out);
    let gone: BTreeSet<&String> = all.difference(&left).collect();
    // The pool's priority class for the tenant's tier isn't needed any more.
    let class = "pool-shared-1/k8s_priorityclass_ringfence-standard-10000.yaml".to_owned();
    assert_eq!(gone, of("23456").iter().filter(|f| *f != changed).chain([&class]).collect());
    for stays in ["tenant-23456/mine.yaml", "mine.yaml", "tenant-34567/kustomization.yaml", ".ringfence-other.sha256"] {
        assert!(left.contains(stays), "{stays}: {left:?}");
    }
    assert_eq!(fs::read_to_string(out.join(changed)).unwrap(), "changed");
    // A second run changes nothing, and doesn't mention files that aren't ours
    // again.
    assert!(!estate.run(&["render"]).exits(0).err.contains("edited since"));
    assert_eq!(all_below(&out), left);

    // An empty folder is removed, too.
    let text = fs::read_to_string(estate.spec()).unwrap();
    fs::remove_file(out.join("tenant-34567/kustomization.yaml")).unwrap();
    estate.write(&text[..text.find("    - id: \"34567\"").unwrap()]);
    estate.run(&["render"]).exits(0);
    assert!(!out.join("tenant-34567").exists());
}

/// A list whose paths lead out of the directory deletes nothing there.
#[test]
fn a_list_of_rendered_files_is_limited_to_its_directory() {
    let estate = Estate::new(&SINGLE_SILO);
    let list = estate.path().join("rendered/.ringfence-solo.sha256");
    estate.run(&["render"]).exits(0);
    let good = fs::read_to_string(&list).unwrap();
    let spec = fs::read(estate.spec()).unwrap();
    let digest = String::from_utf8(Command::new("sha256sum").arg(estate.spec()).output().unwrap().stdout).unwrap();
    let digest = digest.split(' ').next().unwrap();
    for path in ["../tenancy.yaml", estate.spec().to_str().unwrap(), ""] {
        fs::write(&list, format!("{good}{digest}  {path}\n")).unwrap();
        estate.run(&["render"]).refuses(&["is damaged", "nothing was written"]);
        assert_eq!(fs::read(estate.spec()).unwrap(), spec);
    }
    // Somebody replaced a folder or a file by a link.
    fs::create_dir(estate.path().join("outside")).unwrap();
    fs::copy(estate.spec(), estate.path().join("outside/f.yaml")).unwrap();
    symlink("../outside", estate.path().join("rendered/tenant-gone")).unwrap();
    symlink("../tenancy.yaml", estate.path().join("rendered/link.yaml")).unwrap();
    fs::write(&list, format!("{good}{digest}  tenant-gone/f.yaml\n{digest}  link.yaml\n")).unwrap();
    estate.run(&["render"]).exits(0);
    assert!(estate.path().join("outside/f.yaml").exists() && estate.path().join("rendered/link.yaml").is_symlink());
}

/// The embedded sandbox saves its state at the end, so that it holds the
/// released lock.
#[test]
fn a_run_that_fails_leaves_no_lock() {
    let estate = Estate::planted(&SINGLE_SILO);
    for command in ["apply", "destroy"] {
        let run = estate.run(&[command, "--auto-approve", "--tenant", "nobody"]).exits(1);
        assert!(run.err.contains("no tenant has the id `nobody`"), "{}", run.err);
        let run = estate.run(&["unlock", "--auto-approve"]).exits(1);
        assert!(run.err.contains("no run holds the lock"), "{}", run.err);
    }
}
