//! A slow request is answered by the old process while the new one answers a quick one:
//! `grace [PID_FILE [ADDRESS]]`.
//!
//! ```sh
//! curl 'http://127.0.0.1:8080/sleep/?duration=20s' &
//! svc -t web        # or whatever restarts the service
//! curl 'http://127.0.0.1:8080/sleep/?duration=0s'
//! ```
//!
//! Both answers name the process that gave them: its PID, and when it was started.

use axum::{Router, extract::Query, http::StatusCode, routing::get};
use std::{collections::HashMap, env, process, time::SystemTime};

fn main() -> seamless::Result<()> {
    let mut args = env::args().skip(1);
    let pid_file = args.next().unwrap_or("/run/web/web.pid".into());
    let address = args.next().unwrap_or("127.0.0.1:8080".into());
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();

    seamless::init(pid_file)?;
    serve(address)
}

#[tokio::main] // after `init`: the launcher stays small
async fn serve(address: String) -> seamless::Result<()> {
    let started = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let app = Router::new()
        .route("/sleep/", get(move |query: Query<HashMap<String, String>>| sleep(query, started)));
    let reason = seamless::http::serve(address, app).await?;
    log::info!("process {} has drained: {reason:?}", process::id());
    Ok(())
}

async fn sleep(
    Query(query): Query<HashMap<String, String>>,
    started: String,
) -> Result<String, (StatusCode, String)> {
    let duration = query.get("duration").map_or("0s", String::as_str);
    let duration = humantime::parse_duration(duration)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("duration: {error}\n")))?;
    tokio::time::sleep(duration).await;
    Ok(format!("Server pid: {}\nstarted at {started} slept for {duration:?}\n", process::id()))
}
