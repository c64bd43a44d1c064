//! Two servers in one program, plain on one port and with TLS on another. The first start makes a certificate. If you
//! replace it, the next restart uses the new one.
//!
//! ```sh
//! tls [FOLDER [ADDRESS [TLS_ADDRESS]]]     # /run/web 127.0.0.1:8080 127.0.0.1:8443
//! curl --cacert /run/web/cert.pem https://localhost:8443/
//! ```

use axum::{Router, body::Bytes};
use seamless::http::{Server, Tls};
use std::{env, error::Error, fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path, process};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let folder = args.next().unwrap_or("/run/web".into());
    let address = args.next().unwrap_or("127.0.0.1:8080".into());
    let tls_address = args.next().unwrap_or("127.0.0.1:8443".into());
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();

    let folder = Path::new(&folder);
    seamless::init(folder.join("web.pid"))?;
    serve(folder, address, tls_address)
}

#[tokio::main] // after `init`: the launcher stays small
async fn serve(folder: &Path, address: String, tls_address: String) -> Result<(), Box<dyn Error>> {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    if !certificate.exists() {
        make(&certificate, &key)?; // no other generation starts at this time: `init` guarantees it
    }
    let app = Router::new().fallback(async |_: Bytes| format!("Server pid: {}\n", process::id()));
    Server::new()
        .tcp(address, app.clone())
        .tls(tls_address, Tls::pem(certificate, key), app)
        .serve()
        .await?;
    Ok(())
}

/// The certificate comes last, and whole: if it exists, its key does as well.
fn make(certificate: &Path, key: &Path) -> Result<(), Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let mut secret =
        fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(key)?;
    secret.write_all(made.signing_key.serialize_pem().as_bytes())?;
    let new = certificate.with_extension("new");
    fs::write(&new, made.cert.pem())?;
    fs::rename(new, certificate)?;
    Ok(())
}
