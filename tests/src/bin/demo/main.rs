//! `demo`: three sites become one network and let a phone in, step by step, on real packets. It explains GateWRT to
//! a newcomer and proves each statement by running the real programs in a lab. The lab is removed when the demo ends, however
//! it ends.

mod exits;
mod hints;
mod page;
mod phone;
mod scene;
mod screen;
mod stage;
mod story;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use scene::Scene;
use screen::Screen;
use stage::{End, Stage};
use story::STEPS;

/// Environment variable that ends the demo after its last step, instead of keeping the lab up to look around in.
const ONCE: &str = "GATEWRT_DEMO_ONCE";
/// Interval between checks that the lab was not taken down by another program.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    perform(&Screen::stdout()).unwrap_or_else(|error| {
        eprintln!("demo: {error:#}");
        ExitCode::FAILURE
    })
}

fn perform(screen: &Screen) -> Result<ExitCode> {
    stage::check_machine()?;
    story::introduce(screen);
    let stage = Arc::new(Stage::default());
    end_on_signal(stage.clone())?;

    let start = Instant::now();
    let done = play(screen, &stage);
    let is_good = done == STEPS.len();
    screen.summary(done, STEPS.len(), start.elapsed());
    if std::env::var_os(ONCE).is_none_or(|value| value.is_empty()) && stage.is_up() {
        stage.note_played();
        hints::suggest(screen, is_good, stage.page.get().copied())?;
        while stage.is_up() {
            std::thread::sleep(POLL_INTERVAL);
        }
        screen.say("The lab was taken down from elsewhere.");
    }
    let _end = stage.end()?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the steps up to the first that fails, and returns how many succeeded.
fn play(screen: &Screen, stage: &Stage) -> usize {
    let mut scene: Option<Scene> = None;
    for (step, number) in STEPS.iter().zip(1..) {
        screen.step(number, STEPS.len(), step);
        let start = Instant::now();
        let built = scene.take().map_or_else(|| Scene::build(stage, screen), Ok);
        let outcome = built.and_then(|built| (step.play)(scene.insert(built)));
        let time = start.elapsed();
        if let Err(error) = outcome {
            stage.wait_for_end_under_way();
            screen.failed(time, &error);
            scene.iter().for_each(Scene::show_logs);
            return number - 1;
        }
        screen.passed(time);
    }
    STEPS.len()
}

/// Handles signals: on Ctrl-C, a closed terminal or `kill`, the lab is removed before this program exits.
fn end_on_signal(stage: Arc<Stage>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("wait for signals")?;
    std::thread::spawn(move || {
        let signal = signals.forever().next().unwrap_or(SIGTERM);
        let end = stage.end();
        match &end {
            Ok(_) => {
                Screen::stdout().say("\nThe lab is gone: no process, no namespace, no file of it is left.")
            }
            Err(error) => eprintln!("demo: {error:#}"),
        }
        // Ctrl-C is the usual way to end a demo that stays up.
        let is_usual = signal == SIGINT && end.as_ref().is_ok_and(End::is_played);
        std::process::exit(if is_usual { 0 } else { 128 + signal });
    });
    Ok(())
}
