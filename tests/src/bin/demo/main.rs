//! `demo`: three sites become one network and let a phone in, step by step, on real packets. It tells a newcomer what GateWRT does, and
//! shows that each word is so by running the real programs in a lab, which goes when the demo ends, however that happens.

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

/// Exit after the proof, instead of staying up for a person to look around.
const ONCE: &str = "GATEWRT_DEMO_ONCE";
/// How often a demo that stays up looks whether its lab was taken down from elsewhere.
const LOOK: Duration = Duration::from_millis(500);

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
            std::thread::sleep(LOOK);
        }
        screen.say("The lab was taken down from elsewhere.");
    }
    let _end = stage.end()?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays the steps up to the first that fails, and returns how many went well.
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

/// Ctrl-C, a terminal that closes, or `kill`: the lab goes, then this program.
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
        // Ctrl-C is how a demo that stays up is ended.
        let is_usual = signal == SIGINT && end.as_ref().is_ok_and(End::is_played);
        std::process::exit(if is_usual { 0 } else { 128 + signal });
    });
    Ok(())
}
