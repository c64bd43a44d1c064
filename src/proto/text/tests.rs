use super::*;

#[test]
fn a_pid_file_holds_one_decimal_pid() {
    for (text, pid) in [
        ("123\n", Some(123)),
        ("123", Some(123)), // the Go original
        ("2\n", Some(2)),
        ("2147483647\n", Some(i32::MAX)),
        ("2147483648\n", None),
        ("4294967298", None), // 2, where it wraps round
        ("18446744073709551618", None),
        ("1111111111111111111111111111111111111111", None), // 40 digits
        ("", None),
        ("\n", None),
        ("0\n", None),
        ("1\n", None),
        ("-1\n", None),
        ("-123\n", None),
        ("+5\n", None),
        (" 123\n", None),
        ("123 \n", None),
        ("123\r\n", None),
        ("123\n\n", None),
        ("123\n456\n", None),
        ("12 34", None),
        ("0x7b\n", None),
        ("1e3\n", None),
        ("web\n", None),
        ("١٢٣\n", None), // digits, but not decimal ASCII
    ] {
        assert_eq!(parse_pid(text.as_bytes()), pid, "{text:?}");
    }
    for bytes in [&b"\0"[..], b"12\0", b"\xff\xfe1\0", &[0; 64]] {
        assert_eq!(parse_pid(bytes), None, "{bytes:?}");
    }
}

#[test]
fn a_pid_comes_back_from_its_file() {
    for pid in [2, 10, 4_194_304, i32::MAX] {
        let text = format_pid(pid);
        assert_eq!(text, format!("{pid}\n"));
        assert_eq!(parse_pid(text.as_bytes()), Some(pid));
    }
}
