//! The model that the runner uses for executions that name none. The rule is that of the runner's
//! `worker/settings.py`.

use crate::{
    facts::{
        environment::{RunnerEnv, Source},
        host,
    },
    settings::Settings,
};

/// The variable that names the provider.
const PROVIDER: &str = "STIGMER_LLM_PROVIDER";
const MODEL: &str = "STIGMER_LLM_MODEL";
const URL: &str = "STIGMER_LLM_BASE_URL";
/// The address if the provider is [`DEFAULT_PROVIDER`] and [`URL`] is not set.
const OLLAMA_URL: &str = "OLLAMA_BASE_URL";

/// The keys that decide the provider if none is named. The first one that is set counts.
/// `STIGMER_LLM_API_KEY` is not one of them, because it can be the key of any provider.
const DECIDING_KEYS: [(&str, &str); 2] = [
    ("OPENAI_API_KEY", "openai"),
    ("ANTHROPIC_API_KEY", "anthropic"),
];

/// The provider if neither `STIGMER_LLM_PROVIDER` nor one of these keys is set.
const DEFAULT_PROVIDER: &str = "ollama";

/// A value, and the variable and the place that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chosen {
    value: String,
    variable: &'static str,
    place: String,
}

impl Chosen {
    fn describe(&self) -> String {
        format!("{} ({} in {})", self.value, self.variable, self.place)
    }
}

/// The runner's model, and why it is that one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    is_scripted: bool,
    provider: Option<Chosen>,
    name: Option<Chosen>,
    /// The host and the port of the model. The rest of its address, which may have a password, is never kept.
    address: Option<Chosen>,
    /// Those of the deciding keys that are set but not used, because an earlier one decides.
    other_keys: Vec<&'static str>,
}

impl Model {
    /// Whether the container of this project has a model: it gets the variable of the provider.
    pub fn is_used_by(settings: &Settings) -> bool {
        let run = &settings.run;
        run.env.contains_key(PROVIDER) || run.pass_env.iter().any(|name| name == PROVIDER)
    }

    /// The model of the runner's environment.
    pub fn of(runner: &RunnerEnv) -> Self {
        let set = |variable: &'static str| {
            let (value, source) = runner.get(variable)?;
            (!value.is_empty()).then(|| Chosen {
                value: value.to_owned(),
                variable,
                place: runner.place_of(source),
            })
        };
        let named = set(PROVIDER).map(|chosen| Chosen {
            value: chosen.value.trim().to_lowercase(),
            ..chosen
        });
        let mut keys = DECIDING_KEYS.iter().filter_map(|(variable, provider)| {
            let key = set(variable)?;
            // The value of a key is never kept.
            let value = (*provider).to_owned();
            Some(Chosen { value, ..key })
        });
        let provider = named.clone().or_else(|| keys.next());
        let other_keys = match named {
            Some(_) => Vec::new(),
            None => keys.map(|key| key.variable).collect(),
        };
        let is_ollama = provider
            .as_ref()
            .is_none_or(|provider| provider.value == DEFAULT_PROVIDER);
        let url = set(URL).or_else(|| set(OLLAMA_URL).filter(|_| is_ollama));
        Self {
            is_scripted: matches!(runner.get(PROVIDER), Some((_, Source::Scripted))),
            provider,
            name: set(MODEL),
            address: url.map(|url| Chosen {
                value: host::describe_address(url.value.trim()),
                ..url
            }),
            other_keys,
        }
    }

    /// Whether a variable chooses the provider, the model or its address.
    pub fn is_configured(&self) -> bool {
        self.provider.is_some() || self.name.is_some() || self.address.is_some()
    }

    /// One line: the provider, the model and the address, each with the variable that it comes from. Only the runner
    /// knows the defaults of a provider.
    pub fn describe(&self) -> String {
        let address = self
            .address
            .as_ref()
            .map_or_else(|| "its default address".to_owned(), Chosen::describe);
        if self.is_scripted {
            return format!(
                "scripted, at {address}, because none is configured; it needs no key and knows only a few prompts"
            );
        }
        let provider = self.provider.as_ref().map_or_else(
            || format!("{DEFAULT_PROVIDER}, because no provider and no key is set"),
            Chosen::describe,
        );
        let name = self
            .name
            .as_ref()
            .map_or_else(|| "its default model".to_owned(), Chosen::describe);
        let mut line = format!("{provider}, {name}, at {address}");
        for key in &self.other_keys {
            line += &format!("; {key} is set too: set {PROVIDER} to choose");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::env::Env, config::files::Files, facts::environment::parse_env_file,
        settings::resolve::Arguments,
    };

    /// The model for lines of an environment file and variables of the caller.
    fn model(file: &str, passed: &[(&str, &str)]) -> Model {
        let files = Files {
            root: "/src".into(),
            project: "schema = 1\n[run]\nenv-file = '.env'\npass-env = ['OPENAI_API_KEY', 'ANTHROPIC_API_KEY', 'STIGMER_LLM_PROVIDER']\n".to_owned(),
            local: None,
        };
        let env = Env::fake(passed);
        let settings = Settings::resolve(&Arguments::default(), &env, &files).unwrap();
        let file = parse_env_file(".env", file).unwrap();
        Model::of(&RunnerEnv {
            settings: &settings,
            env: &env,
            file: Some(&file),
            scripted: &[],
        })
    }

    #[test]
    fn a_key_decides_the_provider_if_none_is_named() {
        let is = |file: &str, passed: &[(&str, &str)], expected: &str| {
            assert_eq!(
                model(file, passed).describe(),
                expected,
                "{file} {passed:?}"
            );
        };
        let nothing = "ollama, because no provider and no key is set, its default model, at its default address";
        is("", &[], nothing);
        is("STIGMER_LLM_API_KEY=x\nOPENAI_API_KEY=\n", &[], nothing);
        is(
            "OPENAI_API_KEY=sk-1\n",
            &[],
            "openai (OPENAI_API_KEY in .env), its default model, at its default address",
        );
        is(
            "",
            &[("ANTHROPIC_API_KEY", "sk-1")],
            "anthropic (ANTHROPIC_API_KEY in your environment), its default model, at its default address",
        );
        is(
            "OPENAI_API_KEY=sk-1\n",
            &[("ANTHROPIC_API_KEY", "sk-1")],
            "openai (OPENAI_API_KEY in .env), its default model, at its default address; ANTHROPIC_API_KEY is set too: set STIGMER_LLM_PROVIDER to choose",
        );
        is(
            "OPENAI_API_KEY=sk-1\nSTIGMER_LLM_MODEL=m\nSTIGMER_LLM_BASE_URL=http://me:pw@h/v1\n",
            &[("STIGMER_LLM_PROVIDER", "Anthropic ")],
            "anthropic (STIGMER_LLM_PROVIDER in your environment), m (STIGMER_LLM_MODEL in .env), at h:80 (STIGMER_LLM_BASE_URL in .env)",
        );
    }

    #[test]
    fn ollamas_own_address_counts_for_ollama_only() {
        let describe = |file: &str| model(file, &[]).describe();
        let ollama = describe("OLLAMA_BASE_URL=http://h\n");
        assert!(
            ollama.ends_with(", at h:80 (OLLAMA_BASE_URL in .env)"),
            "{ollama}"
        );
        let both = describe("OLLAMA_BASE_URL=http://h\nSTIGMER_LLM_BASE_URL=http://i\n");
        assert!(
            both.ends_with(", at i:80 (STIGMER_LLM_BASE_URL in .env)"),
            "{both}"
        );
        let openai = describe("OLLAMA_BASE_URL=http://h\nOPENAI_API_KEY=x\n");
        assert!(!openai.contains("OLLAMA"), "{openai}");
    }

    #[test]
    fn a_general_key_configures_no_model() {
        assert!(!model("STIGMER_LLM_API_KEY=x\n", &[]).is_configured());
        for line in [
            "OPENAI_API_KEY=x",
            "ANTHROPIC_API_KEY=x",
            "STIGMER_LLM_PROVIDER=ollama",
            "STIGMER_LLM_MODEL=m",
            "STIGMER_LLM_BASE_URL=http://h/v1",
        ] {
            assert!(model(line, &[]).is_configured(), "{line}");
        }
    }

    #[test]
    fn no_key_and_no_login_is_kept() {
        let keys = model("OPENAI_API_KEY=sk-1\nANTHROPIC_API_KEY=sk-2\n", &[]);
        assert!(!format!("{keys:?}").contains("sk-"));
        for url in ["http://me:sk-3@h/v1?key=sk-4", "http://me:sk-3/x@h"] {
            let model = model(&format!("STIGMER_LLM_BASE_URL={url}\n"), &[]);
            assert!(!format!("{model:?}").contains("sk-"), "{model:?}");
        }
    }
}
