//! Appends against servers that do as they are told.

mod support;

use support::*;

#[tokio::test]
async fn records_get_positions_in_order() {
    let fixture = Fixture::new(4, 2).await;
    let log = fixture.open().await;
    let got = log.append(records(0..20)).await.expect("appends");
    assert_eq!(got, positions(0..20));
    assert_eq!(log.append_one(record("x")).await.expect("appends").0, 20);
}
