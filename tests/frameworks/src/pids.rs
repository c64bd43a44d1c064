//! A gRPC service, as `tonic-build` would generate it, and its client: one call, and a stream that goes on
//! until the drain begins.

use futures_util::{Stream, StreamExt, stream};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::codegen::{Body, BoxFuture, StdError, http};
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

/// The PID of the server.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Pid {
    /// Of the daemon.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
}

type Codec = ProstCodec<Pid, Pid>;
type Answers = Pin<Box<dyn Stream<Item = Result<Pid, Status>> + Send>>;

fn own() -> Pid {
    Pid { pid: std::process::id() }
}

async fn get(_: Request<Pid>) -> Result<Response<Pid>, Status> {
    tokio::time::sleep(Duration::from_millis(2)).await;
    Ok(Response::new(own()))
}

/// A stream that would never end keeps its process in the drain: this one ends when the drain begins.
async fn watch(_: Request<Pid>) -> Result<Response<Answers>, Status> {
    let ticks = stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok(own()), ()))
    });
    let ticks = Box::pin(ticks).take_until(seamless::draining().at_once());
    Ok(Response::new(Box::pin(ticks)))
}

/// The server's part.
#[derive(Clone, Copy, Debug)]
pub struct PidsServer;

impl NamedService for PidsServer {
    const NAME: &'static str = "pids.Pids";
}

impl<B> Service<http::Request<B>> for PidsServer
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Codec::default());
            Ok(match request.uri().path() {
                "/pids.Pids/Get" => grpc.unary(service_fn(get), request).await,
                "/pids.Pids/Watch" => grpc.server_streaming(service_fn(watch), request).await,
                _ => Status::unimplemented("").into_http(),
            })
        })
    }
}

/// The client's part.
#[derive(Clone, Debug)]
pub struct PidsClient(tonic::client::Grpc<Channel>);

impl PidsClient {
    /// Connects to `http://ADDRESS`.
    ///
    /// # Errors
    ///
    /// Nobody listens there.
    pub async fn connect(uri: String) -> Result<PidsClient, tonic::transport::Error> {
        let channel = Channel::from_shared(uri).expect("a URI").connect().await?;
        Ok(PidsClient(tonic::client::Grpc::new(channel)))
    }

    /// One call.
    ///
    /// # Errors
    ///
    /// As any call of gRPC.
    pub async fn get(&mut self) -> Result<u32, Status> {
        self.ready().await?;
        let path = http::uri::PathAndQuery::from_static("/pids.Pids/Get");
        let answer = self.0.unary(Request::new(own()), path, Codec::default()).await?;
        Ok(answer.into_inner().pid)
    }

    /// A stream until the server drains.
    ///
    /// # Errors
    ///
    /// As any call of gRPC.
    pub async fn watch(&mut self) -> Result<Streaming<Pid>, Status> {
        self.ready().await?;
        let path = http::uri::PathAndQuery::from_static("/pids.Pids/Watch");
        let answer = self.0.server_streaming(Request::new(own()), path, Codec::default()).await?;
        Ok(answer.into_inner())
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))
    }
}
