//! How a text is to be spoken.

use crate::Error;

/// How a text is to be spoken. What is `None` is as the model has it.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeakOptions {
    /// Code of the language that it is read in; the model's first one where nobody says.
    pub language: Option<String>,
    /// How fast, 0.25 to 4; 1 is as the voice speaks.
    pub speed: f64,
    /// What is drawn follows from it: equal texts, voices and options give equal samples.
    pub seed: u64,
    /// Steps from noise to speech, 1 to 64.
    pub steps: Option<usize>,
    /// How far it is led away from what it would say without text and voice, 0 to 10: 1 is not at all.
    pub guidance: Option<f64>,
    /// Variance of the noise, 0 to 2: 1 is as learnt, less is more even.
    pub temperature: Option<f64>,
}

impl Default for SpeakOptions {
    fn default() -> Self {
        Self { language: None, speed: 1.0, seed: 0, steps: None, guidance: None, temperature: None }
    }
}

impl SpeakOptions {
    /// Refuses what no model can do.
    ///
    /// # Errors
    /// Names the option, its value and its range.
    pub fn check(&self) -> Result<(), Error> {
        let check = |option: &'static str, value: Option<f64>, [least, most]: [f64; 2]| match value {
            Some(value) if !(least..=most).contains(&value) => {
                Err(Error::option(option, format!("{value} is not between {least} and {most}")))
            }
            _ => Ok(()),
        };
        check("speed", Some(self.speed), [0.25, 4.0])?;
        check("steps", self.steps.map(|steps| steps as f64), [1.0, 64.0])?;
        check("guidance", self.guidance, [0.0, 10.0])?;
        check("temperature", self.temperature, [0.0, 2.0])
    }
}
