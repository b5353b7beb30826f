//! hb on AWS: the use cases of hb-api behind four Lambda functions, over the DynamoDB store.
//!
//! | function | is called by | does |
//! | --- | --- | --- |
//! | `ingest` | a function URL or an HTTP API | beats, and nothing else |
//! | `api` | the same | everything else; by direct invocation also the first admin key ([`command`]) |
//! | `sweeper` | a schedule, each minute | canary, tick, sweep |
//! | `notifier` | the table's stream, and a schedule | deliveries; hosts that DynamoDB removed unswept ([`stream`]) |
//!
//! Nothing here decides anything about a host. [`environment`] says what a function is told, [`function`] puts the
//! application together, [`gateway`] turns events into requests, [`topic`] and [`courier`] reach people over SNS, [`canary`]
//! is the sweeper's own beat through the public URL.
//!
//! # What differs from `hb-server`
//!
//! Functions come and go, and run beside each other. So what the sweeper observes stands in the table, each of the others
//! reads it there ([`hb_api::app::Loops::Elsewhere`]), and a sweep that comes a minute late is no gap
//! ([`hb_core::observer::Rules::SCHEDULED`]). The canary is an ordinary host, `hb-sweeper-REGION`, whose
//! key follows from secrets in the table.
//!
//! Two regions may look after one table, each with functions of its own over its replica ([`environment::Peer`]). Each sweeper
//! looks how the other region does ([`neighbour`]), stands in for it where it does not sweep, and asks it before it accuses a
//! host ([`witness`]); each notifier mends what two decisions at the same time left ([`stream`]).

pub mod canary;
pub mod clock;
pub mod command;
pub mod courier;
pub mod environment;
pub mod function;
pub mod gateway;
pub mod neighbour;
pub mod stream;
pub mod sweeper;
pub mod topic;
pub mod witness;

/// Why an invocation failed. Lambda writes it to the log and counts it; the text holds no secret.
pub type Error = Box<dyn core::error::Error + Send + Sync>;
