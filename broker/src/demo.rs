//! The demo tenant: alice, bob, carol, and a conversation of the three.

use anyhow::{Context, Result};
use sotto_model::{ConversationId, TopicPolicy};
use uuid::Uuid;

use crate::data_dir::{DataDir, write_private};
use crate::operation::Operation;
use crate::operations::Operations;

pub(crate) const TENANT: &str = "demo";
pub(crate) const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// Makes it in a store without any tenant.
pub(crate) async fn ensure(operations: &Operations, data: &DataDir) -> Result<()> {
    let directory = operations.store.snapshot().await.context("read the directory")?;
    if !directory.tenants.is_empty() {
        return Ok(());
    }
    operations.add_tenant(TENANT, TopicPolicy::Membership).await?;
    let conversation = ConversationId(Uuid::new_v4());
    let tenant = || TENANT.to_owned();
    operations.run(Operation::ConversationAdd { tenant: tenant(), id: Some(conversation) }).await?;
    for user in USERS {
        let password = Uuid::new_v4().simple().to_string();
        write_private(&data.demo_password(user), password.as_bytes()).context("write a demo password")?;
        operations.run(Operation::UserAdd { tenant: tenant(), user: user.to_owned(), password }).await?;
        let member = Operation::MemberAdd { tenant: tenant(), conversation, user: user.to_owned() };
        operations.run(member).await?;
    }
    // Written last: it stands for all of them.
    write_private(&data.demo_conversation(), conversation.to_string().as_bytes())
        .context("write the demo conversation")
}

/// Commands for two phones, to be copied.
pub(crate) fn commands(data: &DataDir, port: u16) -> Option<String> {
    let conversation = std::fs::read_to_string(data.demo_conversation()).ok()?;
    let conversation = conversation.trim();
    let folder = data.shown();
    let phone = |user: &str| {
        format!(
            "-V 5 -h localhost -p {port} --cafile {folder}/ca.crt \\\n      -i {user}/phone -u {user}@{TENANT} -P \"$(cat {folder}/demo/{user}.password)\""
        )
    };
    Some(format!(
        "  bob's phone, whose session outlives its connection by a week:\n\n    mosquitto_sub {} \\\n      -c -x 604800 -q 1 -t 'c/+/m'\n\n  alice's phone:\n\n    mosquitto_pub {} \\\n      -q 1 -t c/{conversation}/m -m 'hello, bob'\n",
        phone("bob"),
        phone("alice"),
    ))
}
