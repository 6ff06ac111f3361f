use super::*;
use crate::figure::style::FAINT_INK;
use crate::figure::testing::{draw, noise};

fn node(name: &str, layer: i64) -> GraphNode {
    GraphNode { name: name.into(), layer }
}

fn edge(from: usize, to: usize, effect: f64) -> GraphEdge {
    GraphEdge { from, to, port: None, effect, interval: None, significant: true, rank: 0 }
}

fn graph(nodes: Vec<GraphNode>, edges: Vec<GraphEdge>) -> Graph {
    Graph {
        title: "Circuit".into(),
        subtitle: String::new(),
        effect_label: "effect (nats)".into(),
        dashed_meaning: "q ≥ 0.05".into(),
        nodes,
        edges,
    }
}

/// A circuit of made-up numbers: some heads and MLPs of a model of `layers` layers, and `count` edges between them.
pub(in crate::figure) fn circuit(layers: i64, heads: usize, count: usize) -> Graph {
    let mut nodes = vec![node("input", -1)];
    for layer in 0..layers {
        let head = |head: usize| node(&format!("a{layer}.h{}", (head * 5 + layer as usize) % 14), layer);
        nodes.extend((0..heads).filter(|one| noise(layer as usize * 31 + one) > -0.1).map(head));
        nodes.extend((layer % 3 != 1).then(|| node(&format!("m{layer}"), layer)));
    }
    nodes.push(node("logits", layers));
    let is_head = |index: usize| nodes[index].name.starts_with('a');
    let mut edges = Vec::new();
    let pairs = (0..nodes.len()).flat_map(|to| (0..to).map(move |from| (from, to)));
    let apart = |(from, to): &(usize, usize)| {
        let (a, b) = (&nodes[*from], &nodes[*to]);
        a.layer < b.layer || (is_head(*from) && !is_head(*to))
    };
    for (index, (from, to)) in pairs.filter(apart).enumerate() {
        let near = 1.0 / (1 + nodes[to].layer - nodes[from].layer) as f64;
        let effect = (noise(index + 17) * 2.6).powi(5) * (0.25 + near);
        let port = is_head(to).then(|| ['q', 'k', 'v', 'v'][index % 4]);
        let spread = 0.12 + 0.2 * effect.abs();
        let interval = Some((effect - spread, effect + spread));
        edges.push(GraphEdge {
            port,
            interval,
            significant: effect.abs() > 2.0 * noise(index).abs(),
            ..edge(from, to, effect)
        });
    }
    edges.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
    edges.truncate(count);
    edges.iter_mut().enumerate().for_each(|(rank, edge)| edge.rank = rank);
    Graph { subtitle: "demo model, refusal, 24 pairs".into(), ..graph(nodes, edges) }
}

fn edges(canvas: &Canvas) -> Vec<(Part, &str)> {
    let is_edge = |(part, _): &(Part, &str)| matches!(part, Part::Edge { .. });
    canvas.parts().into_iter().filter(is_edge).collect()
}

#[test]
fn small_and_large_circuits_are_drawn() {
    draw("graph-40", circuit(8, 4, 40));
    draw("graph-60", circuit(30, 3, 60));
    draw("graph-200", circuit(12, 12, 200));
    draw("graph-1", graph(vec![node("input", -1), node("logits", 0)], vec![edge(0, 1, -0.2)]));
    draw("graph-zero", graph(vec![node("input", -1), node("logits", 0)], vec![edge(0, 1, 0.0)]));
    let mut long = circuit(3, 3, 12);
    long.nodes
        .iter_mut()
        .for_each(|node| node.name = format!("a part with a name that is told at length {}", node.name));
    long.title = "a title that is told at length ".repeat(4);
    draw("graph-long", long);
    let wide = (0..40).map(|head| node(&format!("a0.h{head}"), 0)).chain([node("logits", 1)]);
    draw("graph-wide", graph(wide.collect(), (0..40).map(|head| edge(head, 40, 1.0 - 0.05 * head as f64)).collect()));
}

#[test]
fn the_strongest_sixty_are_drawn_and_the_subtitle_says_so() {
    let many = circuit(12, 6, 200);
    let canvas = many.draw().unwrap();
    let strongest: Vec<String> = many.edges[..MOST_EDGES].iter().map(|edge| many.told(edge)).collect();
    let mut drawn: Vec<&str> = edges(&canvas).into_iter().map(|(_, text)| text).collect();
    drawn.reverse();
    assert_eq!(drawn, strongest);
    assert_eq!(many.told_subtitle(60), "demo model, refusal, 24 pairs; the 60 strongest of 200 edges");
    assert_eq!(circuit(12, 6, 60).told_subtitle(60), "demo model, refusal, 24 pairs");
}

#[test]
fn an_edge_says_its_name_its_effect_and_its_interval_and_whether_it_is_significant() {
    let nodes = vec![node("input", -1), node("a0.h1", 0), node("logits", 1)];
    let mut one = GraphEdge { port: Some('q'), interval: Some((-0.31, -0.52)), ..edge(0, 1, -0.412) };
    let figure = graph(nodes, Vec::new());
    assert_eq!(figure.told(&one), "input → a0.h1 (q): −0.412 [−0.520, −0.310]");
    one.significant = false;
    assert_eq!(figure.told(&one), "input → a0.h1 (q): −0.412 [−0.520, −0.310]; q ≥ 0.05");
    assert_eq!(figure.told(&edge(1, 2, 2.0)), "a0.h1 → logits: 2.00");
}

#[test]
fn a_writer_stands_under_its_reader_whatever_their_layers() {
    let figure = circuit(10, 5, 60);
    let edges = figure.strongest().unwrap();
    let layout = Layout::new(&figure.nodes, &edges, 100).unwrap();
    let place = |node: usize| layout.boxes[node].unwrap();
    assert!(edges.iter().any(|edge| figure.nodes[edge.from].layer == figure.nodes[edge.to].layer));
    for (edge, way) in edges.iter().zip(&layout.ways) {
        let (from, to) = (place(edge.from), place(edge.to));
        assert!(from.top > to.bottom(), "{}", figure.told(edge));
        assert_eq!((way[0].1, way[way.len() - 1].1), (from.top as f32, to.bottom() as f32));
        assert!(way.windows(2).all(|pair| pair[1].1 <= pair[0].1), "the way never goes down");
    }
}

#[test]
fn nodes_stand_apart_within_the_picture_and_no_edge_goes_behind_one() {
    for figure in [circuit(8, 4, 40), circuit(30, 3, 60), circuit(12, 12, 60)] {
        let edges = figure.strongest().unwrap();
        let layout = Layout::new(&figure.nodes, &edges, 100).unwrap();
        let boxes: Vec<_> = layout.boxes.iter().flatten().collect();
        for (index, a) in boxes.iter().enumerate() {
            assert!(a.left > MARGIN && a.right() < crate::figure::canvas::WIDTH as i32 - MARGIN);
            let meets = |b: &&crate::figure::canvas::Rect| {
                a.left < b.right() && b.left < a.right() && a.top < b.bottom() && b.top < a.bottom()
            };
            assert!(!boxes[index + 1..].iter().any(meets));
        }
        for (edge, way) in edges.iter().zip(&layout.ways) {
            for (x, y) in way {
                let inside = |a: &&crate::figure::canvas::Rect| {
                    (a.left as f32..a.right() as f32).contains(x) && *y > a.top as f32 && *y < a.bottom() as f32
                };
                assert!(!boxes.iter().any(inside), "{}", figure.told(edge));
            }
        }
    }
}

#[test]
fn layers_and_nodes_without_an_edge_take_no_room() {
    let nodes = vec![node("input", -1), node("a0.h0", 0), node("m7", 7), node("logits", 90)];
    let with = graph(nodes.clone(), vec![edge(0, 2, 1.0), edge(2, 3, 1.0), edge(1, 3, f64::NAN)]);
    let layout = Layout::new(&with.nodes, &with.strongest().unwrap(), 0).unwrap();
    assert!(layout.boxes[1].is_none() && layout.boxes[2].is_some());
    let near = graph(vec![node("input", 0), node("m7", 1), node("logits", 2)], vec![edge(0, 1, 1.0), edge(1, 2, 1.0)]);
    assert_eq!(with.draw().unwrap().size(), near.draw().unwrap().size());
}

#[test]
fn sign_strength_and_significance_are_seen() {
    let nodes = || vec![node("input", -1), node("logits", 0)];
    // The colours of the picture at the height of the edge's middle.
    let seen = |effect: f64, significant: bool| {
        let figure = graph(nodes(), vec![GraphEdge { significant, ..edge(0, 1, effect) }]);
        let (canvas, edges) = (figure.draw().unwrap(), figure.strongest().unwrap());
        let layout = Layout::new(&figure.nodes, &edges, Heading::new(&figure.title, "").height()).unwrap();
        let (x, y) =
            (layout.ways[0][0].0 as i32, layout.boxes[1].unwrap().bottom() + 6..layout.boxes[0].unwrap().top - 6);
        y.map(|y| canvas.pixel(x, y)).collect::<Vec<_>>()
    };
    assert!(seen(-1.0, true).iter().all(|pixel| *pixel == color(-1.0)));
    assert!(seen(1.0, true).iter().all(|pixel| *pixel == color(1.0)));
    let dashed = seen(1.0, false);
    assert!(dashed.contains(&PAPER) && dashed.contains(&color(1.0)));
    let scale = Thickness { largest: 2.0 };
    assert_eq!([scale.width(-2.0), scale.width(1.0), scale.width(1e-9)], [WIDEST, WIDEST / 2.0, THINNEST]);
    assert_eq!(Thickness { largest: 0.47 }.sample(), (0.4, "0.4".into()));
}

#[test]
fn queries_keys_and_values_enter_a_head_at_places_of_their_own() {
    let nodes = vec![node("input", -1), node("a0.h1", 0)];
    let ports = ['q', 'k', 'v'].map(|port| GraphEdge { port: Some(port), ..edge(0, 1, 1.0) });
    let figure = graph(nodes, ports.to_vec());
    let layout = Layout::new(&figure.nodes, &figure.strongest().unwrap(), 0).unwrap();
    let ends: Vec<f32> = layout.ways.iter().map(|way| way[way.len() - 1].0).collect();
    let place = layout.boxes[1].unwrap();
    assert!(place.left as f32 + 5.0 < ends[0] && ends[0] + 30.0 < ends[1] && ends[1] + 30.0 < ends[2]);
    assert!(ends[2] < place.right() as f32 - 5.0);
    let svg = figure.draw().unwrap().to_svg();
    assert!(['q', 'k', 'v'].iter().all(|port| svg.contains(&format!(">{port}</text>"))), "{svg}");
}

#[test]
fn ordering_leaves_no_crossing_where_none_is_needed() {
    // Two ladders, given in an order in which all edges cross.
    let mut nodes = Vec::new();
    for layer in 0..6 {
        let names = if layer % 2 == 0 { ["left", "right"] } else { ["right", "left"] };
        nodes.extend(names.map(|name| node(&format!("{name}{layer}"), layer)));
    }
    let edges: Vec<GraphEdge> =
        (0..10).map(|from| edge(from, if from % 2 == 0 { from + 3 } else { from + 1 }, 1.0)).collect();
    let figure = graph(nodes, edges);
    let layout = Layout::new(&figure.nodes, &figure.strongest().unwrap(), 0).unwrap();
    for name in ["left", "right"] {
        let of = |(node, place): (&GraphNode, &Option<crate::figure::canvas::Rect>)| {
            node.name.starts_with(name).then(|| place.unwrap().center().0)
        };
        let middles: Vec<i32> = figure.nodes.iter().zip(&layout.boxes).filter_map(of).collect();
        assert!(middles.iter().all(|x| (x - middles[0]).abs() <= 2), "{name} is a straight line: {middles:?}");
    }
}

#[test]
fn the_same_graph_gives_the_same_picture_and_the_order_of_its_edges_does_not_matter() {
    let figure = circuit(12, 6, 50);
    let mut turned = figure.clone();
    turned.edges.reverse();
    assert_eq!(figure.draw().unwrap().to_svg(), turned.draw().unwrap().to_svg());
}

#[test]
fn a_graph_without_edges_and_edges_that_lead_nowhere_are_errors_that_name_them() {
    let nodes = || vec![node("input", -1), node("a0.h0", 0), node("m0", 0), node("logits", 1)];
    let message = |edges: Vec<GraphEdge>| graph(nodes(), edges).draw().unwrap_err().to_string();
    assert!(message(vec![edge(0, 1, f64::NAN)]).contains("no edges with a finite effect"));
    assert!(message(vec![edge(3, 1, 1.0)]).contains("logits → a0.h0 leads to an earlier layer"));
    assert!(message(vec![edge(0, 9, 1.0)]).contains("input → node 9 names a node that is not there"));
    assert!(message(vec![edge(1, 2, 1.0), edge(2, 1, 1.0)]).contains("leads back to its own start"));
    assert!(message(vec![edge(1, 1, 1.0)]).contains("a0.h0 → a0.h0 leads back"));
}

#[test]
fn parts_are_groups_that_a_page_finds_with_their_names_escaped() {
    let mut figure = circuit(2, 2, 4);
    let named = figure.edges[0].from;
    figure.nodes[named].name = "<a & b>".into();
    let svg = figure.draw().unwrap().to_svg();
    let edges = svg.matches("<g class=\"edge\" data-from=\"").count();
    assert_eq!(edges, 4);
    assert!(svg.contains("data-rank=\"3\"") && !svg.contains("data-rank=\"4\""));
    assert!(
        svg.contains(&format!("<g class=\"node\" data-node=\"{named}\"><title>&lt;a &amp; b&gt;</title>")),
        "{svg}"
    );
    // One edge is one path, which the page's script makes wider to be hit.
    for group in svg.split("<g class=\"edge\"").skip(1) {
        assert_eq!(group.split("</g>").next().unwrap().matches("<path").count(), 1);
    }
    assert!(svg.contains(&FAINT_INK.hex()));
}

#[test]
fn a_report_has_the_graph_with_its_numbers_and_the_script_that_walks_it() {
    use crate::figure::beside;
    use crate::report::{Report, Section, html, markdown};
    let folder = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("GATELENS_FIGURES").map_or(folder.path().to_owned(), std::path::PathBuf::from);
    let figure = circuit(8, 4, 40);
    std::fs::write(kept.join(beside("circuit.png")), figure.draw().unwrap().to_svg()).unwrap();
    let caption = "Edges of the circuit: a letter under a head says what it reads the edge as.";
    let section = Section::new("Circuit").figure(kept.join("circuit.png"), caption, "The circuit, layer by layer");
    let report = Report::new("A circuit that can be walked").section(section);
    let page = html::render(&report).unwrap();
    std::fs::write(kept.join("graph.html"), &page).unwrap();
    assert_eq!(page.matches("<g class=\"edge\"").count(), 40);
    assert!(page.contains(&format!("<title>{}</title>", figure.told(&figure.edges[0]))));
    assert!(page.contains("svg.plot") && page.matches("<script>").count() == 1);
    assert!(markdown::render(&report).contains("![The circuit, layer by layer](<circuit.png>)"));
}
