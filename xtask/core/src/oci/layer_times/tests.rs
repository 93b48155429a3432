use super::*;

const TIMESTAMP: u64 = 1_234_567_890;

/// An entry with its content, as Podman writes it.
fn entry(kind: u8, name: &str, mtime: u64, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::new(kind));
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    header.set_mtime(mtime);
    set_checksum(&mut header);
    let mut entry = [header.as_bytes(), content].concat();
    entry.resize(entry.len().next_multiple_of(BLOCK), 0);
    entry
}

fn records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let length = key.len() + value.len() + 3;
        let length = (1..).map(|digits| length + digits);
        let length = length
            .zip(1..)
            .find(|(length, digits)| length.to_string().len() == *digits);
        content.extend(format!("{} {key}=", length.unwrap().0).bytes());
        content.extend(*value);
        content.push(b'\n');
    }
    content
}

fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = entries.concat();
    tar.resize(tar.len() + 2 * BLOCK, 0);
    tar
}

fn read(tar: &[u8]) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    Retimed::new(tar, TIMESTAMP).read_to_end(&mut read)?;
    Ok(read)
}

/// Entries with any time are read as the same entries with the timestamp.
fn assert_retimed(with: impl Fn(u64) -> Vec<Vec<u8>>) {
    let expected = tar(&with(TIMESTAMP));
    for time in [
        OLDEST,
        TIMESTAMP,
        TIMESTAMP + 1,
        1_795_567_706,
        u64::MAX >> 1,
    ] {
        assert_eq!(read(&tar(&with(time))).unwrap(), expected, "{time}");
    }
}

#[test]
fn only_times_change() {
    assert_retimed(|time| {
        let mut device = Header::new_ustar();
        device.set_entry_type(EntryType::Char);
        device.set_device_major(1).unwrap();
        device.set_device_minor(3).unwrap();
        device.set_uid(5_000_000); // in binary: too many for octal digits
        device.set_size(0);
        device.set_mtime(time);
        set_checksum(&mut device);
        let mut link = Header::new_ustar();
        link.set_entry_type(EntryType::Symlink);
        link.set_link_name("/app/x").unwrap();
        link.set_username("stigmer").unwrap();
        link.set_size(0);
        link.set_mtime(time);
        set_checksum(&mut link);
        vec![
            entry(b'5', "app/", time, b""),
            entry(b'0', "app/main.py", time, &[7; 513]),
            entry(b'0', "app/empty", time, b""),
            entry(b'1', "app/hard", time, b""),
            device.as_bytes().to_vec(),
            link.as_bytes().to_vec(),
            entry(b'0', "app/.wh.gone", time, b""),
        ]
    });
}

#[test]
fn links_have_no_content_whatever_their_size() {
    assert_retimed(|time| {
        let mut link = Header::new_ustar();
        link.set_entry_type(EntryType::Link);
        link.set_size(513);
        link.set_mtime(time);
        set_checksum(&mut link);
        vec![link.as_bytes().to_vec(), entry(b'0', "x", time, b"x")]
    });
}

#[test]
fn long_names_and_extended_attributes_stay() {
    let long = "deep/".repeat(60);
    let kept = records(&[
        ("path", long.as_bytes()),
        (
            "SCHILY.xattr.security.capability",
            b"\x01\0\n=\xff 7 mtime=1\n",
        ),
    ]);
    assert_retimed(|time| {
        vec![
            entry(b'x', "PaxHeaders.0/x", time, &kept),
            entry(b'0', "x", time, b"content"),
            entry(b'L', "././@LongLink", time, long.as_bytes()),
            entry(b'0', "deep/", time, b"content"),
        ]
    });
}

#[test]
fn times_in_extended_headers_are_removed() {
    let times: &[(&str, &[u8])] = &[
        ("mtime", b"1795567706.054723321"),
        ("atime", b"-1.5"),
        ("ctime", b"1795567706"),
    ];
    let kept: (&str, &[u8]) = ("path", b"app/x");
    let with = |all: &[(&str, &[u8])]| {
        tar(&[
            entry(b'g', "pax_global_header", OLDEST, &records(times)),
            entry(b'x', "PaxHeaders.0/x", OLDEST, &records(all)),
            entry(b'0', "x", 5, b"content"),
        ])
    };
    let content = entry(b'0', "x", TIMESTAMP, b"content");
    assert_eq!(
        read(&with(times)).unwrap(),
        tar(std::slice::from_ref(&content))
    );
    let header = entry(b'x', "PaxHeaders.0/x", TIMESTAMP, &records(&[kept]));
    assert_eq!(
        read(&with(&[times[0], kept, times[1], times[2]])).unwrap(),
        tar(&[header, content])
    );
}

/// Build tools set them, so they do not depend on when the layer was built.
#[test]
fn times_of_1970_and_1980_stay() {
    for time in [0, 1, 315_532_800, 315_619_200, OLDEST - 1] {
        let fixed = tar(&[
            entry(b'5', "app/", time, b""),
            entry(
                b'x',
                "PaxHeaders.0/x",
                time,
                &records(&[("path", b"app/x")]),
            ),
            entry(b'0', "x", time, b"content"),
        ]);
        assert_eq!(read(&fixed).unwrap(), fixed, "{time}");
        let exact = format!("{time}.5");
        let exact = tar(&[
            entry(
                b'x',
                "PaxHeaders.0/x",
                time,
                &records(&[("mtime", exact.as_bytes())]),
            ),
            entry(b'0', "x", time, b"content"),
        ]);
        assert_eq!(
            read(&exact).unwrap(),
            tar(&[entry(b'0', "x", time, b"content")])
        );
    }
}

#[test]
fn the_size_in_an_extended_header_is_used() {
    assert_retimed(|time| {
        // What the file holds looks like an entry.
        let inner = entry(b'0', "inner", 99, b"x");
        let mut outer = entry(b'0', "outer", time, b"");
        outer.extend_from_slice(&inner);
        vec![
            entry(b'x', "PaxHeaders.0/x", time, &records(&[("size", b"1024")])),
            outer,
            entry(b'0', "after", time, b"x"),
        ]
    });
}

#[test]
fn gnu_tars_additional_times_are_removed() {
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.as_gnu_mut().unwrap().set_atime(1_795_567_706);
    header.as_gnu_mut().unwrap().set_ctime(1_795_567_706);
    header.set_mtime(1_795_567_706);
    set_checksum(&mut header);
    let read = read(&tar(&[header.as_bytes().to_vec()])).unwrap();
    let header = Header::from_byte_slice(&read[..BLOCK]);
    let gnu = header.as_gnu().unwrap();
    assert_eq!((gnu.atime, gnu.ctime), ([0; 12], [0; 12]));
    assert_eq!(header.mtime().unwrap(), TIMESTAMP);
}

/// Some programs write no blocks of zeros, and engines take such a layer.
#[test]
fn a_layer_may_end_after_any_entry() {
    let with = |time| {
        [
            entry(b'5', "app/", time, b""),
            entry(b'0', "app/x", time, b"x"),
        ]
        .concat()
    };
    assert_eq!(read(&with(1_795_567_706)).unwrap(), with(TIMESTAMP));
    assert_eq!(read(&[]).unwrap(), b"");
}

#[test]
fn an_exact_time_counts_also_before_a_long_name() {
    let long = "deep/".repeat(60);
    let read = read(&tar(&[
        entry(
            b'x',
            "PaxHeaders.0/x",
            5,
            &records(&[("mtime", b"1795567706.05")]),
        ),
        entry(b'L', "././@LongLink", 0, long.as_bytes()),
        entry(b'0', "deep/", 5, b"content"),
    ]));
    let expected = tar(&[
        entry(b'L', "././@LongLink", 0, long.as_bytes()),
        entry(b'0', "deep/", TIMESTAMP, b"content"),
    ]);
    assert_eq!(read.unwrap(), expected);
}

#[test]
fn damaged_layers_are_errors() {
    let file = entry(b'0', "x", 5, &[7; 2000]);
    let mut damaged = tar(std::slice::from_ref(&file));
    damaged[0] ^= 1;
    for (content, why) in [
        (damaged, "damaged"),
        (vec![7; 1024], "not a tar file"),
        (file[..1024].to_vec(), ""),
        (file[..100].to_vec(), ""),
        (tar(&[entry(b'x', "x", 5, b"12 path=x\n")]), "malformed"),
        (tar(&[entry(b'x', "x", 5, b"0 path=x\n")]), "malformed"),
        (tar(&[entry(b'x', "x", 5, b"no record")]), "malformed"),
        (
            tar(&[entry(b'x', "x", 5, &records(&[("size", b"-1")]))]),
            "size in an extended header",
        ),
        (tar(&[entry(b'S', "x", 5, b"")]), "sparse"),
    ] {
        let error = read(&content).unwrap_err();
        match why {
            "" => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
            why => assert!(error.to_string().contains(why), "{why}: {error}"),
        }
    }
}
