//! Where the names of points stand: near their points, over no point and no other name or line to a name.

use super::super::canvas::{Canvas, Rect};
use super::super::style::{Color, PAPER};
use super::super::text::TextStyle;

/// How far a name's box is from its point, nearest first, in pixels.
const DISTANCES: [f32; 5] = [22.0, 60.0, 110.0, 170.0, 240.0];
/// From here on a line leads from the point to its name.
const LEAD_FROM: f32 = 60.0;

/// A point's name and its box.
struct Placed {
    name: String,
    point: (f32, f32),
    place: Place,
    far: bool,
}

/// A box in fractions of pixels.
#[derive(Debug, Clone, Copy)]
struct Place {
    left: f32,
    top: f32,
    width: f32,
    height: f32,
}

/// Names that found their places, and those that did not.
pub(super) struct Names {
    placed: Vec<Placed>,
    unplaced: Vec<String>,
}

/// Looks for a place for every name, in their order, among points of which each is given with its reach.
pub(super) fn place_names(
    named: Vec<((f32, f32), String)>,
    points: &[((f32, f32), f32)],
    plot: Rect,
    style: TextStyle,
) -> Names {
    let points: Vec<Place> = points.iter().map(|(point, reach)| Place::around(*point, *reach)).collect();
    let mut names = Names { placed: Vec::new(), unplaced: Vec::new() };
    for (point, name) in named {
        let (width, height) = (style.width(&name) + 8.0, style.cap_height() + 16.0);
        let found = DISTANCES.iter().find_map(|distance| {
            let far = *distance >= LEAD_FROM;
            let places = candidates(point, *distance, width, height).into_iter();
            let mut free = places.filter(|place| place.is_within(plot) && names.is_free(place, point, far));
            let place = free.find(|place| !points.iter().any(|other| place.meets(other)))?;
            Some((place, far))
        });
        match found {
            Some((place, far)) => names.placed.push(Placed { name, point, place, far }),
            None => names.unplaced.push(name),
        }
    }
    names
}

/// Boxes around a point: beside it first, then over and under it, then askew.
fn candidates((x, y): (f32, f32), distance: f32, width: f32, height: f32) -> [Place; 8] {
    let (right, left, middle) = (x + distance, x - distance - width, x - width / 2.0);
    let (over, under, level) = (y - distance - height, y + distance, y - height / 2.0);
    let places = [
        (right, level),
        (left, level),
        (middle, over),
        (middle, under),
        (right, over),
        (left, over),
        (right, under),
        (left, under),
    ];
    places.map(|(left, top)| Place { left, top, width, height })
}

impl Place {
    fn around((x, y): (f32, f32), reach: f32) -> Place {
        Place { left: x - reach, top: y - reach, width: 2.0 * reach, height: 2.0 * reach }
    }

    fn meets(&self, other: &Place) -> bool {
        let apart = self.left >= other.left + other.width
            || other.left >= self.left + self.width
            || self.top >= other.top + other.height
            || other.top >= self.top + self.height;
        !apart
    }

    fn is_within(&self, plot: Rect) -> bool {
        self.left >= plot.left as f32 + 6.0
            && self.top >= plot.top as f32 + 6.0
            && self.left + self.width <= plot.right() as f32 - 6.0
            && self.top + self.height <= plot.bottom() as f32 - 6.0
    }

    /// Whether a line from one place to another goes through the box.
    fn is_crossed(&self, from: (f32, f32), to: (f32, f32)) -> bool {
        let steps = ((to.0 - from.0).hypot(to.1 - from.1) / 6.0).ceil().max(1.0);
        (0..=steps as usize).any(|step| {
            let part = step as f32 / steps;
            let place = (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part);
            self.meets(&Place::around(place, 1.0))
        })
    }

    /// The place in the box that is nearest to a point.
    fn nearest(&self, (x, y): (f32, f32)) -> (f32, f32) {
        (x.clamp(self.left, self.left + self.width), y.clamp(self.top, self.top + self.height))
    }
}

impl Names {
    /// Whether a name has no other name in its box nor on the line to it, and is itself on no other line.
    fn is_free(&self, place: &Place, point: (f32, f32), far: bool) -> bool {
        self.placed.iter().all(|other| {
            let over = place.meets(&other.place);
            let under = far && other.place.is_crossed(point, place.nearest(point));
            let on_line = other.far && place.is_crossed(other.point, other.place.nearest(other.point));
            !over && !under && !on_line
        })
    }

    /// A sentence with the names that found no place; empty where all did.
    pub fn listed(&self) -> String {
        if self.unplaced.is_empty() {
            return String::new();
        }
        format!("also marked: {}", self.unplaced.join(", "))
    }

    /// Draws the names, with lines to them in a colour where they are far.
    pub fn draw(&self, canvas: &mut Canvas, style: TextStyle, color: Color) {
        for named in self.placed.iter().filter(|named| named.far) {
            canvas.stroke(named.point, named.place.nearest(named.point), color, 3.0);
        }
        for Placed { name, place, .. } in &self.placed {
            let (left, top) = (place.left.round() as i32, place.top.round() as i32);
            let ground = Rect { left, top, width: place.width as i32, height: place.height as i32 };
            canvas.fill(ground, PAPER);
            canvas.text_centered(name, place.left + 4.0, place.top + place.height / 2.0, style);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::style::{INK, TICK_SIZE};
    use super::*;

    const PLOT: Rect = Rect { left: 100, top: 100, width: 1000, height: 1000 };

    #[test]
    fn names_cover_neither_each_other_nor_points_nor_lines_and_none_is_lost() {
        let style = TextStyle::new(TICK_SIZE, INK);
        // A cluster, and one point in a corner.
        let point = |index: usize| (600.0 + (index % 5) as f32 * 30.0, 600.0 + (index / 5) as f32 * 30.0);
        let mut named: Vec<_> = (0..60).map(|index| (point(index), format!("L{index}.H{index}"))).collect();
        named.push(((1099.0, 101.0), "L1.H2".into()));
        let points: Vec<_> = named.iter().map(|(point, _)| (*point, 15.0)).collect();
        let names = place_names(named, &points, PLOT, style);
        assert_eq!(names.placed.len() + names.unplaced.len(), 61);
        assert!(names.placed.len() > 10 && names.listed().starts_with("also marked: L"), "{}", names.placed.len());
        for (index, one) in names.placed.iter().enumerate() {
            assert!(one.place.is_within(PLOT));
            assert!(!points.iter().any(|(point, reach)| one.place.meets(&Place::around(*point, *reach))));
            for other in names.placed.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, other)| other) {
                assert!(!other.place.meets(&one.place));
                assert!(!other.far || !one.place.is_crossed(other.point, other.place.nearest(other.point)));
            }
        }
    }
}
