//! Who is told by a topic whose subscriptions wait, are confirmed, or have ended. The SNS of the local cloud confirms each at
//! once, so here one answers as AWS does (Amazon SNS API reference, `ListSubscriptionsByTopic`).

use std::io::BufReader;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use hb_api::courier::{Courier as _, Parcel};
use hb_core::access::Channel;
use hb_core::time::Time;
use hb_lambda::courier::CloudCourier;
use hb_lambda::topic::Topic;
use hb_notify::Rules;
use hb_store_dynamodb::Connection;
use hb_wire::id::{ChannelId, DeliveryId, EventId};
use hb_wire::view::Notice;
use serde_json::json;

use crate::http;

const ARN: &str = "arn:aws:sns:eu-central-1:123456789012:hb";

/// Two pages of subscriptions: one waits, one has ended, one is confirmed.
const PAGES: [&[(&str, &str)]; 2] = [
    &[("waits@example.org", "PendingConfirmation"), ("left@example.org", "Deleted")],
    &[("agreed@example.org", "arn:aws:sns:eu-central-1:123456789012:hb:1")],
];

fn page(number: usize) -> String {
    let member = |(endpoint, arn): &(&str, &str)| {
        format!(
            "<member><Endpoint>{endpoint}</Endpoint><Protocol>email</Protocol><Owner>1</Owner><TopicArn>{ARN}</TopicArn>\
             <SubscriptionArn>{arn}</SubscriptionArn></member>"
        )
    };
    let members = PAGES[number].iter().map(member).collect::<Vec<_>>().concat();
    let next = if number + 1 < PAGES.len() { "<NextToken>more</NextToken>" } else { "" };
    let result = format!("<Subscriptions>{members}</Subscriptions>{next}");
    format!(
        "<ListSubscriptionsByTopicResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\">\
         <ListSubscriptionsByTopicResult>{result}</ListSubscriptionsByTopicResult></ListSubscriptionsByTopicResponse>"
    )
}

/// An SNS on loopback: its address, and the bodies of what was published.
fn sns() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let published: Arc<Mutex<Vec<String>>> = Arc::default();
    let list = Arc::clone(&published);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let list = Arc::clone(&list);
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                while let Some((_, body)) = http::request(&mut lines) {
                    let body = String::from_utf8(body).unwrap();
                    if body.contains("Action=ListSubscriptionsByTopic") {
                        http::answer(&mut stream, &page(usize::from(body.contains("NextToken=more"))));
                        continue;
                    }
                    list.lock().unwrap().push(body);
                    let result = "<PublishResult><MessageId>1</MessageId></PublishResult>";
                    let namespace = "xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"";
                    http::answer(&mut stream, &format!("<PublishResponse {namespace}>{result}</PublishResponse>"));
                }
            });
        }
    });
    (address, published)
}

fn channel(to: &[&str]) -> Channel {
    Channel {
        id: ChannelId::mint(1, [1; 10]),
        name: "oncall".to_owned(),
        kind: "email".to_owned(),
        settings: json!({ "to": to }),
        target: to.join(", "),
        admin: true,
        created_at: Time(0),
        last_delivered_at: None,
        last_error: None,
    }
}

fn courier(endpoint: String) -> CloudCourier {
    let connection = Connection {
        region: "eu-central-1".to_owned(),
        endpoint: Some(endpoint),
        access_key_id: "LOCAL".to_owned(),
        secret_access_key: "local".to_owned(),
        session_token: None,
    };
    CloudCourier::new(Some(Topic::new(connection, ARN.to_owned())), Rules::default())
}

fn notice() -> Notice {
    Notice {
        event: "down".to_owned(),
        id: EventId::mint(2, [2; 10]),
        incident: None,
        host: None,
        hosts: Vec::new(),
        at: jiff::Timestamp::from_second(1_800_000_000).unwrap(),
        since: None,
        cause: None,
        deadline: None,
        message: "web-01 is DOWN".to_owned(),
        details: std::collections::BTreeMap::new(),
    }
}

fn parcel(notice: &Notice) -> Parcel<'_> {
    Parcel { notice, key: DeliveryId::mint(3, [3; 10]), now: Time(0), attempts: 0 }
}

#[tokio::test]
async fn who_has_not_agreed_is_shown_as_pending_and_is_not_counted_as_told() {
    let (endpoint, published) = sns();
    let courier = courier(endpoint);
    let everybody = ["waits@example.org", "left@example.org", "agreed@example.org", "nobody@example.org"];
    let pending = courier.pending(&channel(&everybody)).await.unwrap();
    assert_eq!(pending, ["waits@example.org", "left@example.org", "nobody@example.org"]);
    assert_eq!(courier.pending(&channel(&["agreed@example.org"])).await, Ok(vec![]));

    let notice = notice();
    let parcel = || parcel(&notice);
    let failed = courier.send(&channel(&["waits@example.org", "left@example.org"]), parcel()).await.unwrap_err();
    assert!(failed.reason.contains("nobody has confirmed") && !failed.permanent, "{failed:?}");
    assert_eq!(*published.lock().unwrap(), [""; 0], "SNS would take it without a word");
    courier.send(&channel(&["waits@example.org", "agreed@example.org"]), parcel()).await.unwrap();
    assert_eq!(published.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_message_that_sns_did_not_take_is_to_be_sent_again() {
    // Nobody listens there.
    let courier = courier("http://127.0.0.1:1".to_owned());
    let failed = courier.send(&channel(&["agreed@example.org"]), parcel(&notice())).await.unwrap_err();
    assert!(failed.reason.contains("SNS did not take the message") && !failed.permanent, "{failed:?}");
}
