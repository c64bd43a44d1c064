//! The documentation as `scripts/docs` builds it, read by Chromium: each link leads somewhere, no page is
//! empty, and none is cut off, on a wide screen and on a narrow one.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use seamless_testing::{bin, boxed::Boxed};
use serde_json::Value;

/// How long Chromium may take to read all pages.
const LIMIT: Duration = Duration::from_secs(500);

#[test]
fn every_link_leads_somewhere_and_every_page_can_be_read() {
    let docs = docs();
    Boxed::new().private_net().run(|folder| {
        let result = read_by_chromium(folder, docs);
        assert_eq!(result.get("error"), None, "the script in the page failed");
        let pages = result["pages"].as_array().expect("pages");
        let ids: HashMap<&str, HashSet<&str>> =
            pages.iter().map(|page| (text(&page["path"]), texts(&page["ids"]))).collect();
        assert!(ids.len() > 80, "{} pages", ids.len());
        for page in ["protocol", "supervisors", "containers", "sockets", "http", "migration"] {
            let path = format!("/seamless/guide/{page}/index.html");
            assert!(ids.contains_key(path.as_str()), "nothing leads to {path}");
        }

        let mut problems: Vec<String> =
            texts(&result["missing"]).iter().map(|path| format!("no page {path}")).collect();
        for page in pages {
            let path = text(&page["path"]);
            if page["text"].as_u64().unwrap_or_default() < 40 {
                problems.push(format!("{path}: empty"));
            }
            problems.extend(texts(&page["cut"]).iter().map(|cut| format!("{path}: cut off {cut}")));
            for link in page["links"].as_array().expect("links") {
                let [target, anchor, decoded] = [0, 1, 2].map(|number| text(&link[number]));
                let lacks = |ids: &HashSet<&str>| !ids.contains(anchor) && !ids.contains(decoded);
                if !anchor.is_empty() && ids.get(target).is_some_and(lacks) {
                    problems.push(format!("{path}: no {anchor} in {target}"));
                }
            }
        }
        problems.sort();
        problems.dedup();
        println!("{} pages", pages.len());
        assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    });
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn texts(value: &Value) -> HashSet<&str> {
    value.as_array().expect("a list").iter().map(text).collect()
}

/// What the script in `crawl.html` reports.
fn read_by_chromium(folder: &Path, docs: PathBuf) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let (sender, result) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (docs, sender) = (docs.clone(), sender.clone());
            // A browser that closes early has what it wants.
            thread::spawn(move || serve(stream, &docs, &sender));
        }
    });
    let mut chromium = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("http://{address}/crawl.html"))
        .env("HOME", folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("chromium: {error}; run scripts/setup"));
    let result = result.recv_timeout(LIMIT);
    chromium.kill().expect("kill");
    chromium.wait().expect("its end");
    serde_json::from_slice(&result.expect("Chromium reports")).expect("JSON")
}

/// The folder of the documentation, built if `scripts/test` has not done so.
fn docs() -> PathBuf {
    if std::env::var_os(bin::BUILT).is_none() {
        let status = Command::new(bin::root().join("scripts/docs")).status().expect("scripts/docs");
        assert!(status.success(), "scripts/docs: {status}");
    }
    bin::cache("doc")
}

/// Answers one request: a file of the documentation, the script, or thanks for the result.
fn serve(mut stream: TcpStream, docs: &Path, results: &Sender<Vec<u8>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let content = match path {
        "/result" => {
            let _ = results.send(body);
            Ok(Vec::new())
        }
        "/crawl.html" => Ok(include_bytes!("crawl.html").to_vec()),
        path => fs::read(docs.join(path.trim_start_matches('/'))),
    };
    let kind = match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let (status, content) = match content {
        Ok(content) => ("200 OK", content),
        Err(_) => ("404 Not Found", b"no such page".to_vec()),
    };
    let length = content.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nCache-Control: max-age=600\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&content)
}
