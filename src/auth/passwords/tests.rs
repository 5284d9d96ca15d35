use std::sync::mpsc;

use rookery_protocol::ErrorCode;

use super::*;

const CHEAP: PasswordCost = PasswordCost {
    memory_kib: 64,
    passes: 1,
};

#[tokio::test]
async fn the_right_password_is_right_and_others_are_not() {
    let passwords = Passwords::start(1, PasswordCost::default()).unwrap();
    let hash = passwords.hash("correct horse".into()).await.unwrap();
    assert!(
        hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{hash}"
    );
    assert_ne!(
        hash,
        passwords.hash("correct horse".into()).await.unwrap(),
        "salted"
    );
    let verify = |password: &str| passwords.verify(password.into(), Some(hash.clone()));
    assert_eq!(
        verify("correct horse").await.unwrap(),
        Verdict::Right { rehashed: None }
    );
    assert_eq!(verify("correct horsf").await.unwrap(), Verdict::Wrong);
    assert_eq!(verify("").await.unwrap(), Verdict::Wrong);
}

#[tokio::test]
async fn the_hashes_of_the_plain_library_are_understood() {
    use argon2::PasswordHasher;
    let theirs = Argon2::default().hash_password_with_salt(b"correct horse", b"0123456789abcdef");
    let theirs = theirs.unwrap().to_string();
    let passwords = Passwords::start(1, PasswordCost::default()).unwrap();
    let verdict = passwords
        .verify("correct horse".into(), Some(theirs))
        .await
        .unwrap();
    assert_eq!(verdict, Verdict::Right { rehashed: None });
}

#[tokio::test]
async fn a_hash_of_another_cost_is_made_anew() {
    let old = Passwords::start(1, CHEAP).unwrap();
    let stored = old.hash("correct horse".into()).await.unwrap();
    let new = Passwords::start(
        1,
        PasswordCost {
            memory_kib: 128,
            passes: 1,
        },
    )
    .unwrap();
    let verdict = new
        .verify("correct horse".into(), Some(stored.clone()))
        .await
        .unwrap();
    let Verdict::Right {
        rehashed: Some(rehashed),
    } = verdict
    else {
        panic!("{verdict:?}")
    };
    assert!(rehashed.contains("m=128,t=1"), "{rehashed}");
    let verdict = new
        .verify("correct horse".into(), Some(rehashed))
        .await
        .unwrap();
    assert_eq!(verdict, Verdict::Right { rehashed: None });
    let verdict = new
        .verify("wrong horse".into(), Some(stored))
        .await
        .unwrap();
    assert_eq!(
        verdict,
        Verdict::Wrong,
        "nothing is rehashed for a wrong password"
    );
}

#[tokio::test]
async fn an_unknown_user_is_verified_at_the_same_cost_and_wrong() {
    let passwords = Passwords::start(1, CHEAP).unwrap();
    assert_eq!(
        passwords.verify("anything".into(), None).await.unwrap(),
        Verdict::Wrong
    );
    let dummy = PasswordHash::new(&passwords.dummy).unwrap();
    let real = PasswordHash::new(&passwords.hash("x".into()).await.unwrap()).unwrap();
    assert_eq!(
        (dummy.algorithm, dummy.params),
        (real.algorithm, real.params)
    );
    let long = "x".repeat(limits::PASSWORD_MAX_BYTES + 1);
    assert_eq!(passwords.verify(long, None).await.unwrap(), Verdict::Wrong);
}

#[tokio::test]
async fn a_stored_hash_that_cannot_be_read_is_our_fault() {
    let passwords = Passwords::start(1, CHEAP).unwrap();
    let refused = passwords
        .verify("x".into(), Some("plain".into()))
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::Internal);
}

/// Occupies the only worker behind a queue until the returned sender is dropped.
fn occupy(queue: &Sender<Job>) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let (started, has_started) = mpsc::channel();
    let job: Job = Arc::new(move |_| {
        started.send(()).unwrap();
        released.lock().unwrap().recv().unwrap_err();
    });
    queue.send(job).unwrap();
    has_started.recv().unwrap();
    release
}

#[tokio::test]
async fn who_finds_no_idle_time_is_served_all_the_same() {
    let passwords = Passwords::start(1, CHEAP).unwrap();
    let release = occupy(&passwords.queue);
    let hash = passwords.hash("correct horse".into()).await.unwrap();
    drop(release);
    // The idle worker comes to the same job, skips it, and goes on.
    let verdict = passwords.verify("correct horse".into(), Some(hash)).await;
    assert_eq!(verdict.unwrap(), Verdict::Right { rehashed: None });
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_takes_no_places_of_others() {
    let passwords = Passwords::start(1, CHEAP).unwrap();
    let release = occupy(&passwords.queue);
    for _ in 0..QUEUE {
        passwords.queue.try_send(Arc::new(|_| {})).unwrap();
    }
    assert!(passwords.hash("x".into()).await.is_ok());
    drop(release);
}

/// Niceness and policy of the calling thread, from proc_pid_stat(5).
#[cfg(target_os = "linux")]
fn priority() -> (i32, u32) {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    // Behind the name, which is in parentheses, comes the third field.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let field = |number: usize| fields.split_whitespace().nth(number - 3).unwrap();
    (field(19).parse().unwrap(), field(41).parse().unwrap())
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn workers_take_idle_time_and_the_late_one_little() {
    const SCHED_IDLE: u32 = 5;
    let passwords = Passwords::start(1, CHEAP).unwrap();
    let [(_, policy), late] = [&passwords.queue, &passwords.late].map(|queue| {
        let (tell, told) = mpsc::channel();
        queue
            .send(Arc::new(move |_| tell.send(priority()).unwrap()))
            .unwrap();
        told.recv().unwrap()
    });
    assert_eq!(policy, SCHED_IDLE);
    let (niceness, policy) = priority();
    assert_eq!(late.1, policy);
    assert!(late.0 == NICENESS || niceness > NICENESS, "{late:?}");
}

#[tokio::test]
async fn a_full_queue_is_refused_at_once() {
    let passwords = Passwords::start(1, CHEAP).unwrap();
    let release = occupy(&passwords.queue);
    let late = occupy(&passwords.late);
    for queue in [&passwords.queue, &passwords.late] {
        for _ in 0..QUEUE {
            queue.try_send(Arc::new(|_| {})).unwrap();
        }
    }
    let refused = passwords.hash("x".into()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.retry_after_ms.is_some());
    drop((release, late));
}

#[tokio::test(start_paused = true)]
async fn who_waited_two_seconds_is_refused_and_its_job_skipped() {
    let passwords = Passwords::start(1, CHEAP).unwrap();
    let release = [&passwords.queue, &passwords.late].map(occupy);
    let refused = passwords
        .run(|_| -> Result<(), _> { panic!("must not run") })
        .await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Unavailable);
    drop(release);
    tokio::time::resume();
    assert!(passwords.hash("x".into()).await.is_ok());
}

#[tokio::test]
async fn a_panic_costs_its_caller_an_answer_and_nobody_else() {
    let passwords = Passwords::start(1, CHEAP).unwrap();
    let refused = passwords
        // As a panic, without its backtrace: that takes longer to write than a caller waits.
        .run(|_| -> Result<(), _> { std::panic::resume_unwind(Box::new("on purpose")) })
        .await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Internal);
    assert!(passwords.hash("x".into()).await.is_ok());
}
