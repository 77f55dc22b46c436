//! What an S3 server may answer, and what is made of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::{Create, StoreFault};

/// Answers in this order, one a request; nothing for 0.
type Script = Arc<Mutex<VecDeque<u16>>>;

async fn serve(mut socket: TcpStream, script: Script) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
            match socket.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(len) => seen.extend_from_slice(&buffer[..len]),
            }
        }
        seen.clear();
        let next = script.lock().expect("not poisoned").pop_front();
        let status = next.expect("no request that the script does not know");
        if status == 0 {
            return;
        }
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\netag: \"x\"\r\n\r\n");
        if socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A store on a server that answers so.
async fn store(answers: &[u16]) -> (Store, Script) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
    let address = listener.local_addr().expect("bound");
    let script: Script = Arc::new(Mutex::new(answers.iter().copied().collect()));
    let served = Arc::clone(&script);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, Arc::clone(&served)));
        }
    });
    let store = twice("s3://bucket", Path::default(), |retry| {
        let builder = AmazonS3Builder::new()
            .with_bucket_name("bucket")
            .with_region("x")
            .with_endpoint(format!("http://{address}"))
            .with_access_key_id("x")
            .with_secret_access_key("x")
            .with_client_options(client().with_allow_http(true))
            .with_retry(retry);
        Ok(Arc::new(builder.build().expect("valid")))
    });
    (store.expect("valid"), script)
}

#[tokio::test]
async fn c5_answers_to_a_create_are_told_apart() {
    for (status, expected) in [
        (200, Ok(Create::Done)),
        (409, Ok(Create::Exists)),
        (412, Ok(Create::Exists)),
        (500, Err((StoreFault::Server, false))),
        (502, Err((StoreFault::Server, false))),
        (503, Err((StoreFault::SlowDown, false))),
        (429, Err((StoreFault::SlowDown, false))),
        (403, Err((StoreFault::Refused, true))),
        (401, Err((StoreFault::Refused, true))),
        (0, Err((StoreFault::Connection, false))),
    ] {
        let (store, _) = store(&[status]).await;
        let created = store.create("name", &[Bytes::from("x")]).await;
        let got =
            created.map_err(|error| (error.fault().expect("of the store"), error.is_definite()));
        assert_eq!(got, expected, "status {status}");
    }
}

/// Whether the first request was applied is not known, whatever is answered to the second.
#[tokio::test]
async fn c8_a_create_that_is_refused_after_a_server_error_is_in_doubt() {
    let (store, script) = store(&[500, 403]).await;
    let is_mine = || async { Ok(None) };
    let chunks = [Bytes::from("x")];
    let created = store.create_resolved("name", &chunks, is_mine).await;
    let error = created.err().expect("refused");
    assert!(!error.is_definite(), "{error}");
    assert!(script.lock().expect("not poisoned").is_empty());
}

/// Reads may be repeated by anybody.
#[tokio::test]
async fn reads_are_repeated_within_a_request() {
    let (store, _) = store(&[503, 404]).await;
    assert_eq!(store.get("name").await.expect("answered"), None);
}
