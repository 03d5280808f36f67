//! One request over a connection of its own, by HTTP/1.1 or HTTP/2, and as much of its answer as is wanted.
//!
//! Invariant: no more of a body is kept than `most`, and nothing is waited for after that.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Answer;

impl Answer {
    fn new<B>(response: &Response<B>) -> Answer {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: Vec::new(), is_cut: false, trailers: HeaderMap::new() }
    }

    /// Takes more of the body; false once that is enough.
    fn take(&mut self, bytes: &[u8], most: usize) -> bool {
        let room = most - self.body.len();
        self.is_cut |= bytes.len() > room;
        self.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
        !self.is_cut
    }
}

/// Asks by HTTP/1.1.
pub(super) async fn by_http1<IO>(stream: IO, request: Request<()>, most: usize) -> Result<Answer, String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let said = |error: hyper::Error| error.to_string();
    let (mut sender, link) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    let asking = async {
        let mut response = sender.send_request(request.map(|()| Empty::<Bytes>::new())).await.map_err(said)?;
        let mut answer = Answer::new(&response);
        if most == 0 {
            return Ok(answer);
        }
        while let Some(frame) = response.body_mut().frame().await {
            let Ok(data) = frame.map_err(said)?.into_data() else { continue };
            if !answer.take(&data, most) {
                break;
            }
        }
        Ok(answer)
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        answer = &mut asking => answer,
        // The link may end in the very poll that delivered the answer.
        _ = link => asking.await,
    }
}

/// Asks by HTTP/2; `message` is the body that goes up.
pub(super) async fn by_http2<IO>(
    stream: IO,
    request: Request<()>,
    message: Option<Vec<u8>>,
    most: usize,
) -> Result<Answer, String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let said = |error: h2::Error| error.to_string();
    let (sender, link) = h2::client::handshake(stream).await.map_err(said)?;
    let asking = async {
        let (response, mut up) = sender.ready().await?.send_request(request, message.is_none())?;
        if let Some(message) = message {
            up.send_data(message.into(), true)?;
        }
        let mut response = response.await?;
        let mut answer = Answer::new(&response);
        let down = response.body_mut();
        if most == 0 {
            return Ok(answer);
        }
        while let Some(data) = down.data().await.transpose()? {
            // What is taken may be sent again, else a body longer than the window would never end.
            down.flow_control().release_capacity(data.len())?;
            if !answer.take(&data, most) {
                return Ok(answer);
            }
        }
        answer.trailers = down.trailers().await?.unwrap_or_default();
        Ok(answer)
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        answer = &mut asking => answer.map_err(said),
        ended = link => match ended {
            Ok(()) => asking.await.map_err(said),
            Err(error) => Err(said(error)),
        },
    }
}
