//! A method with its parameters settled, and its call.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use latentd_client::protocol::PluginParams;
use latentd_plugin_api::abi::{LATENTD_SKIP, latentd_method};
use rmpv::Value;

use super::result;
use crate::error::{Class, Error, Result};
use crate::plugins::Plugins;
use crate::plugins::artifact::{self, Artifact};
use crate::plugins::call::{Answer, AtHand, Job};
use crate::plugins::engine_calls::{Needed, RunsEngines};
use crate::plugins::engines::{Engine, Engines, JobOf};
use crate::plugins::given::{Given, GivenPicture};
use crate::plugins::host::{self, bytes, text};
use crate::plugins::job::{JobFacts, described};
use crate::plugins::lending::{Lending, Made};
use crate::plugins::library::Plugin;
use crate::plugins::method_rows::{MethodKind, MethodRow};
use crate::plugins::notices;
use crate::plugins::objects::Objects;
use crate::plugins::opened::Opened;
use crate::plugins::records::recorded;
use crate::plugins::subjobs::SubPlan;

/// What a quick method has. Within the daemon it cannot be ended, only be told of it.
pub(crate) const WITHIN: Duration = Duration::from_secs(5);

/// What took so long.
const ITSELF: &str = "it took";
const DECODED: &str = "the pictures of its parameters were decoded for";

/// What to tell of a quick method that has had its time: whoever waits for it waits for its pictures, too.
fn late(took: Duration, what: &str) -> Option<String> {
    let (seconds, most) = (took.as_secs_f64(), WITHIN.as_secs());
    (took > WITHIN).then(|| format!("{what} {seconds:.1} s, {most} are allowed; what takes longer is a job"))
}

/// A method that is called with these parameters.
pub(crate) struct Method {
    plugin: Arc<Plugin>,
    row: MethodRow,
    /// With the plugin's.
    name: String,
    given: Given,
    /// The parameters as MessagePack, pictures by their SHA-256.
    request: Vec<u8>,
    opened: Opened,
    answer: Answer,
    /// Those that it will run.
    pub(in crate::plugins) engines: Vec<Engine>,
    /// What was said while it was planned.
    notices: Vec<String>,
}

/// What it gave.
pub(crate) struct Returned {
    /// A map's entries, as they are sent.
    pub result: Vec<(Value, Value)>,
    /// What the plugin wants to be told, its name before.
    pub notices: Vec<String>,
    /// Pictures that it leaves beside.
    pub artifacts: Vec<Artifact>,
}

impl Returned {
    /// Takes pictures beside the result, as far as there may be so many.
    fn leave(&mut self, artifacts: Vec<Artifact>) {
        if let Some((plugin, text)) = artifact::add(&mut self.artifacts, artifacts) {
            notices::keep(&mut self.notices, &plugin, &text);
        }
    }
}

impl Method {
    /// Settles the parameters of a method; a job is planned. Its plugin is loaded if it is not in memory.
    pub(crate) fn settle(
        plugins: &Plugins,
        (name, kind): (&str, MethodKind),
        params: &PluginParams,
        job: &dyn Job,
    ) -> Result<Self> {
        let (plugin, row) = plugins.method(name)?;
        if row.kind != kind {
            // Another version came just now.
            let text = format!("method '{name}' is another one than it was; ask again");
            return Err(Error::new(Class::Plugin, text));
        }
        let mut method = Self::of((plugin, row), name, params, job)?;
        plugins.plan_engines(&method.needed(), &[], job, &mut method.engines)?;
        Ok(method)
    }

    /// The same of one that was found, before its engines are.
    pub(in crate::plugins) fn of(
        (plugin, row): (Arc<Plugin>, MethodRow),
        name: &str,
        params: &PluginParams,
        job: &dyn Job,
    ) -> Result<Self> {
        let kind = row.kind;
        let given = Given::settle(name, row.params.as_ref(), params, job.resources())?;
        let mut request = vec![];
        // Writing to memory does not fail.
        rmpv::encode::write_value(&mut request, &given.told.clone().into()).ok();
        let sizes = given.pictures.iter().map(GivenPicture::size).collect();
        let opened = Opened::new(given.files.clone(), sizes);
        let (name, answer) = (name.to_owned(), Answer::default());
        let (engines, notices) = (vec![], vec![]);
        let method = Self { plugin, row, name, given, request, opened, answer, engines, notices };
        if kind == MethodKind::Job { method.planned(job) } else { Ok(method) }
    }

    /// Bytes that it takes, with its engines and networks.
    pub(crate) fn planned_bytes(&self) -> u64 {
        let of_engines = self.engines.iter().map(|engine| engine.planned_bytes);
        of_engines.fold(self.answer.planned_bytes(), u64::saturating_add)
    }

    /// Engines that it will run: a quick one runs none.
    pub(in crate::plugins) fn needed(&self) -> Vec<Needed> {
        match self.row.kind {
            MethodKind::Quick => vec![],
            MethodKind::Job => [&self.answer.engines[..], &self.given.engines].concat(),
        }
    }

    /// The jobs that it will draw, with its plugin's name.
    pub(crate) fn subplans(&self) -> impl Iterator<Item = (&str, &SubPlan)> {
        self.answer.subjobs.iter().map(|plan| (self.plugin.manifest.name.as_str(), plan))
    }

    /// `(width, height)` of the picture in its parameters with the most pixels.
    pub(crate) fn largest_picture(&self) -> Option<(usize, usize)> {
        let sizes = self.given.pictures.iter().map(|picture| {
            let [width, height, _] = picture.size();
            (width, height)
        });
        sizes.max_by_key(|(width, height)| width * height)
    }

    /// Its name, with the plugin's.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its name, without the plugin's.
    pub(crate) fn short_name(&self) -> &str {
        &self.row.name
    }

    fn facts(&self) -> JobFacts<'_> {
        JobFacts {
            method: &self.name,
            request: &self.request,
            pictures: 0,
            batch: 0,
            strict: false,
            depth: 0,
        }
    }

    fn wrong(&self, at: &str, text: &str) -> Error {
        Error::new(Class::Plugin, format!("plugin '{}', {at}: {text}", self.plugin.manifest.name))
    }

    /// What job.plan says of it.
    fn planned(mut self, job: &dyn Job) -> Result<Self> {
        let Some(plan) = self.plugin.tables.plan.and_then(|table| table.plan) else { return Ok(self) };
        let params = self.given.packed_for_plan();
        let told = described(&self.facts(), &params, &[]);
        let opened = RefCell::new(self.opened.clone());
        let call = self.plugin.call(job, None, Some(Answer::default())).with_opened(&opened);
        // SAFETY: what is lent lives until the function returns; the call is this one.
        let status = unsafe { plan(call.pointer(), &raw const told, &raw const host::PLAN) };
        let state = call.end(status, "job.plan")?;
        let answer = state.plan.unwrap_or_default();
        let notices = state.notices;
        if status != LATENTD_SKIP {
            if let Some(want) = answer.wants.first() {
                let text = format!("it wants {} in '{}', which draws nothing", want.stage, self.name);
                return Err(self.wrong("job.plan", &text));
            }
            self.answer = answer;
        }
        self.notices = notices;
        self.opened = opened.into_inner();
        Ok(self)
    }

    /// Calls it.
    pub(crate) fn call(&self, job: &dyn Job) -> Result<Returned> {
        recorded(job, &self.plugin.manifest, || self.returned(job))
    }

    fn returned(&self, job: &dyn Job) -> Result<Returned> {
        let Self { plugin, row, given, .. } = self;
        let (manifest, at) = (&plugin.manifest, format!("method '{}'", row.name));
        let wrong = |text: &str| self.wrong(&at, text);
        given.files.iter().try_for_each(|file| file.check())?;
        let objects = RefCell::<Objects>::default();
        let opened = RefCell::new(self.opened.for_instance());
        let begun = Instant::now();
        let is_late = || (row.kind == MethodKind::Quick).then(|| late(begun.elapsed(), DECODED)).flatten();
        let given_to = given.give(&manifest.name, &objects, job);
        if let Some(text) = is_late() {
            return Err(wrong(&text));
        }
        let (_kept, handles) = given_to?;
        let params = given.packed(&handles);
        let mut returned = Returned { result: vec![], notices: vec![], artifacts: vec![] };
        self.hear(&mut returned, self.notices.clone());
        let made = match row.kind {
            MethodKind::Quick => None,
            MethodKind::Job => {
                let told = described(&self.facts(), &params, &self.answer.note);
                let (made, said) = Made::by(plugin, &told, job, (&objects, &opened))?;
                self.hear(&mut returned, said.notices);
                returned.leave(said.artifacts);
                Some(made)
            }
        };
        let told = latentd_method {
            size: size_of::<latentd_method>() as u32,
            reserved: 0,
            name: text(&row.name),
            params: bytes(&params),
        };
        let of = JobOf {
            method: &self.name,
            request: &self.request,
            pictures: 0,
            batch: 0,
            engines: &self.engines,
            depth: 0,
        };
        let engines = Engines::new(of, job);
        let _ends = Lending::begin(&objects);
        let call = plugin.call(job, Some(&objects), None).with_opened(&opened);
        // They want an instance, as networks do.
        let at_hand: Option<&dyn RunsEngines> = if made.is_some() { Some(&engines) } else { None };
        let call =
            call.with_at_hand(AtHand { engines: at_hand, is_between: made.is_some(), ..AtHand::default() });
        let table = plugin.tables.methods.ok_or_else(|| wrong("it has no table of methods"))?;
        let status = match &made {
            None => {
                let quick = table.quick.ok_or_else(|| wrong("its table has no function quick"))?;
                // SAFETY: what is lent lives until the function returns; the call is this one.
                unsafe { quick(call.pointer(), &raw const told) }
            }
            Some(made) => {
                let run = table.run.ok_or_else(|| wrong("its table has no function run"))?;
                // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
                unsafe { run(made.pointer(), call.pointer(), &raw const told) }
            }
        };
        if made.is_none()
            && let Some(text) = late(begun.elapsed(), ITSELF)
        {
            return Err(wrong(&text));
        }
        let state = call.end(status, &at)?;
        if job.is_cancelled() {
            return Err(Error::new(Class::Cancelled, format!("cancelled in '{}'", self.name)));
        }
        if status == LATENTD_SKIP {
            return Err(wrong("it answered SKIP, which plans and stages may"));
        }
        if !state.replaced.is_empty() {
            return Err(wrong("it replaces what no stage gave it; a method answers by reply 0"));
        }
        if let Some(slot) = state.replies.keys().find(|slot| **slot != 0) {
            return Err(wrong(&format!("reply {slot} is none of a method's; it answers by reply 0")));
        }
        self.hear(&mut returned, state.notices);
        returned.leave(state.artifacts);
        for (plugin, text) in engines.notices() {
            notices::keep(&mut returned.notices, &plugin, &text);
        }
        returned.leave(engines.artifacts());
        let reply = state.replies.get(&0).ok_or_else(|| wrong("it gave no result; it answers by reply 0"))?;
        let most = job.resources().most_picture_bytes();
        returned.result = result::read(reply, row.result.as_ref(), &mut objects.borrow_mut(), most)
            .map_err(|text| wrong(&format!("its result {text}")))?;
        Ok(returned)
    }

    fn hear(&self, returned: &mut Returned, said: Vec<String>) {
        for text in said {
            notices::keep(&mut returned.notices, &self.plugin.manifest.name, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_is_told_with_what_took_so_long() {
        assert_eq!(late(WITHIN, ITSELF), None);
        let later = WITHIN + Duration::from_millis(1500);
        let end = "6.5 s, 5 are allowed; what takes longer is a job";
        assert_eq!(late(later, ITSELF), Some(format!("it took {end}")));
        let told = late(later, DECODED).expect("told");
        assert_eq!(told, format!("the pictures of its parameters were decoded for {end}"));
    }
}
