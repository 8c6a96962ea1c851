// SPDX-License-Identifier: GPL-2.0

//! Kernel threads that can be stopped and frozen, and what they wait on.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h),
//! [`include/linux/freezer.h`](srctree/include/linux/freezer.h)

use core::ptr;
use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*,
    str::CStr,
    sync::Arc,
    task::{
        Task,
        MAX_SCHEDULE_TIMEOUT,
        TASK_FREEZABLE,
        TASK_INTERRUPTIBLE,
        TASK_NORMAL,
        TASK_UNINTERRUPTIBLE, //
    },
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// The work of a thread.
pub(crate) trait Body: Send + Sync + 'static {
    /// Runs in the thread, and returns soon after [`Current::should_stop`] is true.
    fn run(&self, thread: &Current);
}

/// The thread that has this: a [`KThread`].
///
/// # Invariants
///
/// The current task is a thread of the kernel: it was started by [`KThread::start`], and has not returned
/// from [`Body::run`]; or it runs a KUnit test.
pub(crate) struct Current(NotThreadSafe);

impl Current {
    /// The thread that runs a KUnit test.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn in_kunit() -> Self {
        // INVARIANT: KUnit has a thread of the kernel run each test.
        Self(NotThreadSafe)
    }

    /// Whether the thread is to end.
    pub(crate) fn should_stop(&self) -> bool {
        // SAFETY: By the type invariant the current task is a thread of the kernel.
        unsafe { bindings::kthread_should_stop() }
    }

    /// Whether the thread is to end or to freeze.
    pub(crate) fn should_pause(&self) -> bool {
        // SAFETY: The current task may be looked at.
        self.should_stop() || unsafe { bindings::ksm_current_freezing() }
    }
}

/// A thread; dropping this stops it and waits for its end.
///
/// # Invariants
///
/// `task` is a thread that was started here and has not been stopped; this has a reference to it. It
/// runs `body`, which is dropped after that only.
pub(crate) struct KThread<T: Body> {
    task: *mut bindings::task_struct,
    _body: Arc<T>,
}

// SAFETY: A thread may be stopped by any other.
unsafe impl<T: Body> Send for KThread<T> {}
// SAFETY: There are no methods that take `&self`.
unsafe impl<T: Body> Sync for KThread<T> {}

impl<T: Body> KThread<T> {
    /// Starts a thread of this name that runs `body`, with the given nice value.
    pub(crate) fn start(name: &'static CStr, nice: i32, body: Arc<T>) -> Result<Self> {
        // SAFETY: `thread_main` gets the body, which is kept until the thread has ended; the name
        // is a format with one argument, a string.
        let task = from_err_ptr(unsafe {
            bindings::kthread_create_on_node(
                Some(thread_main::<T>),
                ptr::from_ref::<T>(&body).cast_mut().cast(),
                bindings::NUMA_NO_NODE,
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        })?;
        // SAFETY: The thread waits to be woken for the first time.
        unsafe {
            bindings::get_task_struct(task);
            bindings::set_user_nice(task, nice as c_long);
            bindings::wake_up_process(task);
        }
        // INVARIANT: The thread was just started, and the reference taken before.
        Ok(Self { task, _body: body })
    }
}

impl<T: Body> Drop for KThread<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the thread was not stopped yet, and the task is there even
        // if the thread has ended by itself; the reference goes with this.
        unsafe { bindings::kthread_stop_put(self.task) };
    }
}

/// # Safety
///
/// `body` must point to a `T` that lives until the thread has ended.
unsafe extern "C" fn thread_main<T: Body>(body: *mut c_void) -> c_int {
    // SAFETY: The current task is a thread of the kernel.
    unsafe { bindings::ksm_set_freezable() };
    // INVARIANT: This is what `KThread::start` has the thread call.
    let thread = Current(NotThreadSafe);
    // SAFETY: The caller vouches for it.
    unsafe { &*body.cast::<T>() }.run(&thread);
    0
}

/// Lets others run if it is their turn.
pub(crate) fn cond_resched() {
    // SAFETY: All callers may sleep.
    unsafe { bindings::cond_resched() };
}

/// Whether the current task has been sent a signal.
pub(crate) fn signal_pending() -> bool {
    kernel::current!().signal_pending()
}

/// Nanoseconds of CPU time that the current task has taken.
pub(crate) fn cpu_time() -> u64 {
    // SAFETY: The current task is alive.
    unsafe { bindings::task_sched_runtime(Task::current_raw()) }
}

/// How long to wait at most.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    None,
    Millis(Msecs),
}

/// Where threads wait, ready to be stopped and frozen.
///
/// # Invariants
///
/// `head` is initialised.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue has a lock of its own.
unsafe impl Send for WaitQueue {}
// SAFETY: As above.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    pub(crate) fn new(
        name: &'static CStr,
        key: Pin<&'static kernel::sync::LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: The head is initialised here.
            // SAFETY: The slot is valid for writes and pinned.
            head <- Opaque::ffi_init(|slot| unsafe {
                bindings::__init_waitqueue_head(slot, name.as_char_ptr(), key.as_ptr())
            }),
        })
    }

    /// Wakes all that wait.
    pub(crate) fn wake_all(&self) {
        // SAFETY: By the type invariant the queue is initialised.
        unsafe {
            bindings::__wake_up(self.head.get(), TASK_NORMAL, 0, ptr::null_mut());
        }
    }

    /// Waits until `ready`, which is looked at after each [`WaitQueue::wake_all`], or the limit.
    ///
    /// A thread that waits here can be stopped and frozen.
    pub(crate) fn wait(&self, thread: &Current, limit: Limit, mut ready: impl FnMut() -> bool) {
        let left = match limit {
            Limit::None => MAX_SCHEDULE_TIMEOUT,
            Limit::Millis(ms) => c_long::try_from(msecs_to_jiffies(ms)).unwrap_or(c_long::MAX),
        };
        self.wait_in_state(TASK_INTERRUPTIBLE | TASK_FREEZABLE, left, || {
            ready() || thread.should_stop()
        });
    }

    /// Waits until `ready`, through signals as well; for any task.
    pub(crate) fn wait_uninterruptible(&self, ready: impl FnMut() -> bool) {
        self.wait_in_state(TASK_UNINTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT, ready);
    }

    fn wait_in_state(&self, state: c_int, mut left: c_long, mut ready: impl FnMut() -> bool) {
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        // SAFETY: The entry is initialised here, and is off the queue when this returns.
        unsafe { bindings::init_wait_entry(entry.get(), 0) };
        loop {
            // SAFETY: By the type invariant the queue is initialised, and the entry was above.
            unsafe { bindings::prepare_to_wait_event(self.head.get(), entry.get(), state) };
            if ready() || left == 0 {
                break;
            }
            // SAFETY: The state of the current task was set above.
            left = unsafe { bindings::schedule_timeout(left) };
        }
        // SAFETY: As above.
        unsafe { bindings::finish_wait(self.head.get(), entry.get()) };
    }
}

#[kernel::macros::kunit_tests(ksm_rs_kthread)]
mod tests {
    use super::*;
    use kernel::{
        static_lock_class,
        sync::atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        time::{
            Instant,
            Monotonic, //
        }, //
    };

    /// Does as many turns of work as it is told, and waits in between.
    #[pin_data]
    struct Worker {
        wanted: Atomic<u32>,
        done: Atomic<u32>,
        #[pin]
        queue: WaitQueue,
    }

    impl Worker {
        fn new() -> Result<Arc<Self>> {
            Arc::pin_init(
                pin_init!(Self {
                    wanted: Atomic::new(0),
                    done: Atomic::new(0),
                    queue <- WaitQueue::new(c"ksm_rs_test", static_lock_class!()),
                }),
                GFP_KERNEL,
            )
        }

        fn has_work(&self) -> bool {
            self.wanted.load(Acquire) > self.done.load(Acquire)
        }
    }

    impl Body for Worker {
        fn run(&self, thread: &Current) {
            while !thread.should_stop() {
                if self.has_work() {
                    self.done.store(self.done.load(Acquire) + 1, Release);
                    self.queue.wake_all();
                }
                self.queue.wait(thread, Limit::None, || self.has_work());
            }
        }
    }

    #[test]
    fn a_thread_works_when_it_is_woken_and_stops_when_it_waits() -> Result {
        let worker = Worker::new()?;
        let thread = KThread::start(c"ksm_rs_test", 0, worker.clone())?;
        for turn in 1..=20 {
            worker.wanted.store(turn, Release);
            worker.queue.wake_all();
            worker.queue.wait_uninterruptible(|| !worker.has_work());
        }
        drop(thread);
        assert_eq!(worker.done.load(Acquire), 20);
        Ok(())
    }

    #[test]
    fn a_thread_can_be_stopped_at_once() -> Result {
        for _ in 0..20 {
            drop(KThread::start(c"ksm_rs_test", 0, Worker::new()?)?);
        }
        Ok(())
    }

    /// Waits for what never comes, and notes how long.
    #[pin_data]
    struct Waiter {
        waited_millis: Atomic<i64>,
        #[pin]
        queue: WaitQueue,
    }

    impl Body for Waiter {
        fn run(&self, thread: &Current) {
            let begin = Instant::<Monotonic>::now();
            self.queue.wait(thread, Limit::Millis(50), || false);
            self.waited_millis
                .store(begin.elapsed().as_millis(), Release);
            self.queue.wake_all();
            self.queue.wait(thread, Limit::None, || false);
        }
    }

    #[test]
    fn a_wait_ends_at_its_limit() -> Result {
        let waiter = Arc::pin_init(
            pin_init!(Waiter {
                waited_millis: Atomic::new(0),
                queue <- WaitQueue::new(c"ksm_rs_test", static_lock_class!()),
            }),
            GFP_KERNEL,
        )?;
        let thread = KThread::start(c"ksm_rs_test", 0, waiter.clone())?;
        waiter
            .queue
            .wait_uninterruptible(|| waiter.waited_millis.load(Acquire) != 0);
        drop(thread);
        // It may have begun in the middle of a jiffy.
        assert!(waiter.waited_millis.load(Acquire) >= 30);
        Ok(())
    }
}
