use std::time::{Duration, Instant};

use super::*;

const LLAMA3: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
const GEMMA: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}";
const MISTRAL: &str = "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}";

fn turn(role: &str, content: &str) -> Message {
    Message::new(role, content)
}

fn conversation() -> Vec<Message> {
    vec![turn("user", " Hi "), turn("assistant", "Hello."), turn("user", "Bye")]
}

fn specials() -> BTreeMap<String, String> {
    [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, text)| (name.to_owned(), text.to_owned())).into()
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, &specials()).expect("a sound template")
}

fn render(source: &str, messages: &[Message]) -> Result<String, TemplateError> {
    template(source).render(messages, true, &Map::new())
}

fn rendered(source: &str) -> String {
    render(source, &conversation()).expect("rendered")
}

#[test]
fn llama_3_conversations() {
    assert_eq!(
        rendered(LLAMA3),
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

#[test]
fn gemma_conversations() {
    assert_eq!(
        rendered(GEMMA),
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n\
         <start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    );
}

#[test]
fn mistral_conversations() {
    assert_eq!(rendered(MISTRAL), "<s>[INST]  Hi  [/INST]Hello.</s>[INST] Bye [/INST]");
}

#[test]
fn a_refusal_of_the_template_is_given_in_its_words() {
    let error = render(GEMMA, &[turn("system", "Be brief")]).expect_err("refused");
    assert!(matches!(&error, TemplateError::Raised { message } if message == "System role not supported"));
    let nested = "{% macro check(m) %}{{ raise_exception('no ' ~ m.role) }}{% endmacro %}{{ check(messages[0]) }}";
    let error = render(nested, &conversation()).expect_err("refused");
    assert!(matches!(&error, TemplateError::Raised { message } if message == "no user"), "{error}");
}

#[test]
fn the_generation_prompt_can_be_left_out() {
    let text = template(LLAMA3).render(&conversation(), false, &Map::new()).expect("rendered");
    assert!(text.ends_with("Bye<|eot_id|>"));
}

#[test]
fn blocks_are_trimmed_as_hugging_face_trims_them() {
    let source = "{% for m in messages %}\n    {% if loop.first %}\n  first {{ m.content }}\n    {% endif %}\n{% endfor %}\nend\n";
    assert_eq!(rendered(source), "  first  Hi \nend");
}

#[test]
fn python_methods_slices_and_words_work() {
    assert_eq!(rendered("{{ ' a '.strip() }}|{{ 'a,b'.split(',')[-1] }}|{{ 'Ab'.upper() }}"), "a|b|AB");
    assert_eq!(rendered("{{ 'x\n'.rstrip('\n') }}{{ 'abc'.startswith('ab') }}"), "xTrue");
    assert_eq!(rendered("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}{{ none }}"), "a=1None");
    assert_eq!(rendered("{% for m in messages[::-1] %}{{ m.role[0] }}{% endfor %}"), "uau");
    assert_eq!(rendered("{{ messages[1:]|length }}{{ messages[-1].content }}"), "2Bye");
    assert_eq!(
        rendered("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"),
        "3"
    );
    assert_eq!(rendered("{{ tools is defined }}{{ tools is none }}{{ absent is defined }}"), "TrueTrueFalse");
    assert_eq!(rendered("{{ messages[0].tool_calls is defined }}{{ messages[0].tool_calls }}"), "False");
    assert_eq!(rendered("{{ messages is iterable and messages is not string and messages[0] is mapping }}"), "True");
    assert_eq!(rendered("{% if True and not False and None is none %}yes{% endif %}"), "yes");
}

#[test]
fn values_are_written_as_python_writes_them() {
    assert_eq!(rendered("{{ none }} {{ true }} {{ [1, none, false] }}"), "None True [1, None, False]");
    assert_eq!(rendered("{{ ['a', {'b': \"it's\"}] }}"), "['a', {'b': \"it's\"}]");
}

#[test]
fn json_is_written_as_python_writes_it() {
    assert_eq!(
        rendered("{{ {'b': [1, 2.5, none], 'a': '<é>\\'&', 'c': {}} | tojson }}"),
        "{\"b\": [1, 2.5, null], \"a\": \"<é>'&\", \"c\": {}}"
    );
    assert_eq!(rendered("{{ {'a': [1]} | tojson(indent=2) }}"), "{\n  \"a\": [\n    1\n  ]\n}");
    assert_eq!(
        rendered("{{ messages[2] | tojson(ensure_ascii=False) }}"),
        "{\"role\": \"user\", \"content\": \"Bye\"}"
    );
    assert!(render("{{ [1] | tojson(indent=99999999999999) }}", &[]).is_err());
}

#[test]
fn generation_blocks_leave_the_text_as_it_is() {
    let source = "{% for m in messages %}{%- generation -%} {{ m.content }}{% endgeneration %}{% endfor %}";
    assert_eq!(rendered(source), " Hi Hello.Bye");
}

#[test]
fn the_date_is_a_parameter_and_never_the_clocks() {
    let dated = template("{{ strftime_now('%d %b %Y') }}");
    assert_eq!(dated.date(), Some(Day::default()));
    assert_eq!(dated.render(&[], true, &Map::new()).expect("rendered"), "26 Jul 2024");
    let day: Day = "2031-02-03".parse().expect("a day");
    let other = dated.at(day);
    assert_eq!(other.date(), Some(day));
    assert_eq!(other.render(&[], true, &Map::new()).expect("rendered"), "03 Feb 2031");
    assert_eq!(template(LLAMA3).at(day).date(), None);
    assert_eq!(rendered("{{ strftime_now is defined }}"), "True");
}

#[test]
fn endless_templates_end_soon() {
    let began = Instant::now();
    let endless = [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% set x = i * j %}{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    ];
    for source in endless {
        let error = render(source, &conversation()).expect_err("endless");
        assert!(matches!(error, TemplateError::Endless { messages: 3 }), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn recursion_ends_in_an_error() {
    let source = "{% macro again(n) %}{{ again(n + 1) }}{% endmacro %}{{ again(0) }}";
    assert!(matches!(render(source, &[]), Err(TemplateError::Failed { .. })));
}

#[test]
fn floods_end_in_an_error() {
    let line = "x".repeat(1000);
    let direct = format!("{{% for i in range(100000) %}}{line}{{% endfor %}}");
    assert!(matches!(render(&direct, &[]), Err(TemplateError::Flood { .. })));
    let doubling = "{% set ns = namespace(x='abcdefgh') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}";
    let error = render(doubling, &[]).expect_err("a flood into a variable");
    assert!(matches!(error, TemplateError::Flood { .. }), "{error}");
}

#[test]
fn sizes_that_a_template_asks_for_are_bounded() {
    for source in [
        "{{ 'a\nb' | indent(99999999999999) }}",
        "{{ '%0999999999999d' | format(1) }}",
        "{{ '{:>999999999999}'.format(1) }}",
        "{{ 'a' * 99999999999 }}",
        "{{ range(99999999999) | list }}",
    ] {
        assert!(render(source, &[]).is_err(), "{source}");
    }
    assert!(render("{{ 'a\nb' | indent('x' * 9999) }}", &[]).is_err());
}

#[test]
fn indentation_is_that_of_jinja() {
    for (source, expected) in [
        ("{{ 'a\n\nb' | indent(2, first=true) }}", "  a\n\n  b"),
        // A line of spaces is not blank, an empty one is.
        ("{{ 'a\n \n\nb' | indent }}", "a\n     \n\n    b"),
        ("{{ 'a\n\nb' | indent(2, blank=true) }}", "a\n  \n  b"),
        ("{{ '\na' | indent(2, true) }}", "  \n  a"),
        ("{{ 'a\nb' | indent('> ') }}", "a\n> b"),
        ("{{ 'a\nb' | indent(width='-') }}", "a\n-b"),
    ] {
        assert_eq!(rendered(source), expected, "{source}");
    }
}

#[test]
fn errors_name_the_line() {
    let error = ChatTemplate::new("a\n{% if %}", &specials()).expect_err("a syntax error");
    assert!(matches!(error, TemplateError::Syntax { line: 2, .. }), "{error}");
    let error = render("\n\n{{ absent.x.y }}", &[]).expect_err("an undefined value");
    assert!(matches!(error, TemplateError::Failed { line: 3, .. }), "{error}");
    let long = "x".repeat(LONGEST_SOURCE + 1);
    assert!(matches!(ChatTemplate::new(&long, &specials()), Err(TemplateError::TooLong { .. })));
}

#[test]
fn a_hundred_messages_are_within_the_bounds() {
    let many: Vec<Message> = (0..400).map(|i| turn(if i % 2 == 0 { "user" } else { "assistant" }, "words")).collect();
    for source in [LLAMA3, GEMMA, MISTRAL] {
        assert!(render(source, &many).is_ok());
    }
}

#[test]
fn what_a_template_makes_is_bounded_whatever_it_makes_it_of() {
    let doubled = |start: &str, step: &str| {
        format!(
            "{{% set ns = namespace(s={start}) %}}{{% for i in range(60) %}}{{% set ns.s = {step} %}}{{% endfor %}}{{{{ ns.s }}}}"
        )
    };
    let kept = |step: &str| {
        format!(
            "{{% set ns = namespace(s='x', l=[]) %}}{{% for i in range(20) %}}{{% set ns.s = ns.s + ns.s %}}{{% endfor %}}\
             {{% for i in range(100000) %}}{{% set ns.l = ns.l + [{step}] %}}{{% endfor %}}"
        )
    };
    let all = [
        doubled("'ab'", "ns.s + ns.s"),
        doubled("'ab'", "ns.s ~ ns.s"),
        doubled("'ab'", "[ns.s, ns.s] | join('')"),
        doubled("'ab'", "ns.s | replace('a', ns.s)"),
        doubled("'ab'", "ns.s.replace('b', ns.s)"),
        doubled("'ab'", "''.join([ns.s, ns.s])"),
        doubled("'ab'", "ns.s.join([ns.s, ns.s, ns.s])"),
        doubled("'ab'", "ns.s * 1000"),
        doubled("'ab'", "1000 * ns.s"),
        doubled("[1]", "[ns.s, ns.s]"),
        doubled("[1]", "{'a': ns.s, 'b': ns.s}"),
        doubled("[1]", "ns.s + ns.s"),
        doubled("'ab'", "(ns.s, ns.s) | string"),
        kept("ns.s[1:]"),
        kept("ns.s | upper"),
        kept("ns.s.title()"),
        kept("ns.s | list"),
        "{% macro f(s, n) %}{% if n > 0 %}{{ f(s + s, n - 1) }}{% else %}{{ s | length }}{% endif %}{% endmacro %}{{ f('ab', 60) }}".to_string(),
        "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% else %}abcdefgh{% endif %}{% endmacro %}{{ f(60) }}".to_string(),
        "{{ ('a' * 9000) | indent(width=200) | replace('', 'x' * 9000) }}".to_string(),
    ];
    for source in all {
        let started = Instant::now();
        let error = render(&source, &conversation()).expect_err(&source);
        let bounded =
            matches!(error, TemplateError::Flood { .. } | TemplateError::Endless { .. } | TemplateError::Failed { .. });
        assert!(bounded, "{source}: {error}");
        assert!(started.elapsed() < Duration::from_secs(20), "{source}");
    }
}

#[test]
fn long_conversations_stay_far_from_the_bound_on_what_is_made() {
    let long: Vec<Message> = (0..200).map(|i| turn(["user", "assistant"][i % 2], &"word ".repeat(400))).collect();
    for source in [LLAMA3, GEMMA, MISTRAL] {
        assert!(render(source, &long).expect("rendered").len() > 350_000);
    }
}

#[test]
fn a_message_reaches_the_template_with_every_field_in_its_order() {
    let json = r#"{"role": "tool", "z": null, "content": [{"type": "text", "text": "é"}], "a": {"y": 1, "b": [2.5]}}"#;
    let message: Message = serde_json::from_str(json).expect("a message");
    assert_eq!((message.role(), message.text()), ("tool", None));
    assert_eq!(render("{{ messages[0] | tojson }}", &[message]).expect("rendered"), json);
    let error = serde_json::from_str::<Message>(r#"{"content": "x"}"#).expect_err("no role");
    assert!(error.to_string().contains("missing field `role`"), "{error}");
    for role in ["7", "null", "\"\""] {
        let error = serde_json::from_str::<Message>(&format!("{{\"role\": {role}}}")).expect_err(role);
        assert!(error.to_string().contains(&format!("the role is {role};")), "{error}");
    }
}

#[test]
fn variables_go_before_special_tokens_and_never_before_the_conversation() {
    let template = template("{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ tools is none }}{{ think }}");
    let with = |variables: serde_json::Value| {
        template.render(&conversation(), true, variables.as_object().expect("an object"))
    };
    assert_eq!(with(serde_json::json!({})).expect("rendered"), "<s></s>FalseTrue");
    let some = serde_json::json!({"bos_token": "B", "think": false, "tools": []});
    assert_eq!(with(some).expect("rendered"), "B</s>FalseFalseFalse");
    for name in ["messages", "add_generation_prompt"] {
        let error = with(serde_json::json!({name: []})).expect_err(name);
        assert!(matches!(&error, TemplateError::Reserved { name: n } if n == name), "{error}");
    }
}

#[test]
fn nothing_that_is_nested_deep_ends_the_program() {
    let sources = [
        "{{ ".to_owned() + &"(".repeat(100_000),
        "{{ ".to_owned() + &"[".repeat(100_000),
        "{{ ".to_owned() + &"not ".repeat(100_000) + "a }}",
        "{{ ".to_owned() + &"-".repeat(100_000) + "1 }}",
        "{{ 1".to_owned() + &" + 1".repeat(100_000) + " }}",
        "{{ a".to_owned() + &".b".repeat(100_000) + " }}",
        "{{ a".to_owned() + &" | upper".repeat(50_000) + " }}",
        "{{ a".to_owned() + &" if a else a".repeat(50_000) + " }}",
        "{% if a %}".repeat(50_000),
        "{% set (".to_owned() + &"(".repeat(50_000),
    ];
    for source in &sources {
        let error = ChatTemplate::new(source, &specials()).expect_err(&source[..20]);
        assert!(matches!(error, TemplateError::Syntax { .. }), "{error}");
    }
}

#[test]
fn values_that_hold_values_without_end_are_refused_or_let_go() {
    let nested = |step: &str| {
        format!(
            "{{% set ns = namespace(l=1) %}}{{% for i in range(50000) %}}{step}{{% endfor %}}{{{{ ns.l is defined }}}}"
        )
    };
    for step in [
        "{% set ns.l = [ns.l] %}",
        "{% set ns.l = (ns.l, 1) %}",
        "{% set ns.l = {'a': ns.l} %}",
        "{% set ns.l = dict(a=ns.l) %}",
        "{% set ns.l = [ns.l] | map('string') | list + [ns.l] %}",
        "{% set ns.l = [ns.l] | reverse %}",
        "{% set ns.l = {'a': ns.l}.items() %}",
        "{% set ns.l = [ns.l].index %}",
        "{% set ns.l = cycler(ns.l) %}",
        "{% set ns.l = joiner(ns.l) %}",
    ] {
        let error = render(&nested(step), &[]).expect_err(step);
        assert!(matches!(error, TemplateError::Failed { .. } | TemplateError::Flood { .. }), "{step}: {error}");
    }
    // Chains through namespaces, macros and loops are as long as they like.
    for step in [
        "{% set ns.l = namespace(l=ns.l) %}",
        "{% for x in [ns.l] %}{% set ns.l = loop %}{% endfor %}",
        "{% set p = ns.l %}{% for x in [1] recursive %}{% set ns.l = loop %}{% endfor %}",
        "{% set p = ns.l %}{% macro f() %}{{ p }}{% endmacro %}{% set ns.l = f %}",
    ] {
        assert_eq!(render(&nested(step), &[]).expect(step), "True");
    }
    let own = "{% set ns = namespace() %}{% set ns.l = [ns] %}{{ ns }}";
    assert!(matches!(render(own, &[]), Err(TemplateError::Failed { .. })));
}

#[test]
fn work_without_output_is_counted_as_steps() {
    let long = "{% set ns = namespace(s='ab') %}{% for i in range(20) %}{% set ns.s = ns.s + ns.s %}{% endfor %}";
    for step in [
        "{{ 'x' in ns.s }}",
        "{{ ns.s | length }}",
        "{{ ns.s[1] }}",
        "{{ ns.s.find('x') }}",
        "{{ ns.s == ns.s[0:] }}",
        "{{ ns.s.count('x') }}",
    ] {
        let source = format!("{long}{{% for i in range(100000) %}}{step}{{% endfor %}}");
        let began = Instant::now();
        let error = render(&source, &[]).expect_err(step);
        assert!(matches!(error, TemplateError::Endless { .. } | TemplateError::Flood { .. }), "{step}: {error}");
        assert!(began.elapsed() < Duration::from_secs(20), "{step}");
    }
}

#[test]
fn a_loop_or_a_recursion_through_calls_and_loops_ends() {
    for source in [
        "{% for n in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{% macro a() %}{% call a() %}{{ a() }}{% endcall %}{{ caller() if caller }}{% endmacro %}{{ a() }}",
    ] {
        let error = render(source, &[]).expect_err(source);
        assert!(matches!(error, TemplateError::Failed { .. }), "{source}: {error}");
    }
}
