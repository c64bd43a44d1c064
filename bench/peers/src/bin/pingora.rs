//! The peer pingora: a new process, started with `--upgrade` beside the old one, waits at the upgrade socket for
//! the listener, which the old one sends at a QUIT. Both accept for 5 s then, a constant of pingora.

use std::error::Error;

use pingora_core::{
    apps::http_app::ServeHttp,
    protocols::http::ServerSession,
    server::{
        Server,
        configuration::{Opt, ServerConf},
    },
    services::listening::Service,
};
use seamless_bench_peers::{Options, text};

/// How long connections that are open have after these 5 s: as long as an idle one of the other servers.
const GRACE: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::from_args()?;
    let mut upgrade_socket = options.pid_file.into_os_string();
    upgrade_socket.push(".upgrade");
    let conf = ServerConf {
        upgrade_sock: upgrade_socket.into_string().map_err(|_| "the path is no UTF-8")?,
        threads: 2,
        grace_period_seconds: Some(GRACE),
        ..ServerConf::default()
    };
    let opt = Opt { upgrade: options.upgrade, ..Opt::default() };
    let mut server = Server::new_with_opt_and_conf(opt, conf);
    server.bootstrap();
    let mut service = Service::new("web".to_owned(), Answer);
    service.add_tcp(&options.listen.to_string());
    server.add_service(service);
    server.run_forever()
}

struct Answer;

#[async_trait::async_trait]
impl ServeHttp for Answer {
    async fn response(&self, _: &mut ServerSession) -> http::Response<Vec<u8>> {
        let text = text().into_bytes();
        let response = http::Response::builder().header("Content-Length", text.len());
        response.body(text).expect("a response")
    }
}
