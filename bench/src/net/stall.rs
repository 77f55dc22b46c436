//! A relay between a client and its stripe-writer that can hold back what the client sends.

use std::net::Ipv4Addr;

use anyhow::Result;
use stripelog::{Log, Membership, Options, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::cluster::Cluster;

/// Bytes passed on at once.
const CHUNK: usize = 64 << 10;

/// The switch of a relay.
#[derive(Debug)]
pub(crate) struct Stall {
    held: watch::Sender<bool>,
}

impl Stall {
    /// Holds back everything that the client sends from now on.
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Passes on what was held back, and what comes.
    pub(crate) fn release(&self) {
        self.held.send_replace(false);
    }
}

/// A client whose records go through a relay.
///
/// # Errors
/// If the log cannot be opened.
pub(crate) async fn client(cluster: &Cluster) -> Result<(Log, Stall)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (held, watched) = watch::channel(false);
    let writer = cluster.writer();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(writer).await else {
                continue;
            };
            let (from_client, mut to_client) = client.into_split();
            let (mut from_server, to_server) = server.into_split();
            tokio::spawn(relay(from_client, to_server, watched.clone()));
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
            });
        }
    });
    let membership = Membership {
        sequencers: vec![cluster.sequencer()],
        writers: vec![Writer {
            address,
            stripes: 0..=1023,
        }],
    };
    let log = Log::open(Options::new(cluster.store(), membership)).await?;
    Ok((log, Stall { held }))
}

async fn relay(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut held: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let Ok(len) = from.read(&mut buffer).await else {
            return;
        };
        if len == 0 || held.wait_for(|held| !held).await.is_err() {
            return;
        }
        if to
            .write_all(buffer.get(..len).unwrap_or(&[]))
            .await
            .is_err()
        {
            return;
        }
    }
}
