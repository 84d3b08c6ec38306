//! Plots as SVG: lines over the number of nodes, which has a logarithmic axis.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;

/// Told apart also without colours, by their marks and dashes.
const COLOURS: [&str; 4] = ["#0b5cad", "#c8501e", "#2e7d32", "#7b3fa0"];
const DASHES: [&str; 4] = ["none", "7 3", "2 3", "9 3 2 3"];

/// A plot.
pub struct Plot {
    title: &'static str,
    vertical: &'static str,
    lines: Vec<(&'static str, Vec<(usize, f64)>)>,
}

impl Plot {
    /// An empty one, with what its vertical axis shows.
    pub fn new(title: &'static str, vertical: &'static str) -> Self {
        Self { title, vertical, lines: Vec::new() }
    }

    /// That line has this value at so many nodes; `None` if nothing was measured there.
    pub fn point(&mut self, line: &'static str, nodes: usize, value: Option<f64>) {
        let Some(value) = value else { return };
        match self.lines.iter_mut().find(|(name, _)| *name == line) {
            Some((_, points)) => points.push((nodes, value)),
            None => self.lines.push((line, vec![(nodes, value)])),
        }
    }

    /// The picture; a logarithmic vertical axis where the values are that far apart.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points.iter().copied());
        let most = points().map(|(_, value)| value).fold(0.0, f64::max);
        let least = points().map(|(_, value)| value).filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        let (first, last) =
            points().fold((usize::MAX, 1), |(first, last), (nodes, _)| (first.min(nodes), last.max(nodes)));
        let scale = Scale::of(least, most);
        let (first, last) = ((first.min(last) as f64).log10(), (last as f64).log10());
        let x = |nodes: f64| LEFT + (nodes.log10() - first) / (last - first).max(0.01) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - scale.share(value) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"13\" fill=\"#222\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{}</text>\n",
            self.title
        );
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in scale.ticks() {
            let at = y(tick);
            _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{tick}</text>",
                LEFT - 8.0,
                at + 4.5
            );
        }
        let mut nodes: Vec<usize> = points().map(|(nodes, _)| nodes).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for nodes in nodes {
            let at = x(nodes as f64);
            _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {bottom}v6\" stroke=\"#222\"/><text x=\"{at:.1}\" y=\"{:.0}\" \
                 text-anchor=\"middle\">{nodes}</text>",
                bottom + 22.0
            );
        }
        _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#222\"/>\n\
             <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">nodes (logarithmic)</text>\n\
             <text transform=\"translate(18 {:.0}) rotate(-90)\" text-anchor=\"middle\">{}{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 14.0,
            (TOP + bottom) / 2.0,
            self.vertical,
            if scale.is_logarithmic { " (logarithmic)" } else { "" }
        );
        for (number, (name, points)) in self.lines.iter().enumerate() {
            let (colour, dash) = (COLOURS[number % COLOURS.len()], DASHES[number % DASHES.len()]);
            let mut path = String::new();
            for (place, (nodes, value)) in points.iter().enumerate() {
                let (x, y) = (x(*nodes as f64), y(*value));
                _ = write!(path, "{}{x:.1} {y:.1}", if place == 0 { 'M' } else { 'L' });
                _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
            }
            let stroke = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"");
            let (from, at) = (right + 16.0, TOP + 16.0 + 24.0 * number as f64);
            _ = writeln!(
                svg,
                "<path d=\"{path}\" {stroke}/>\n<path d=\"M{from} {at}h28\" {stroke}/>\
                 <text x=\"{:.0}\" y=\"{:.1}\">{name}</text>",
                from + 36.0,
                at + 4.5
            );
        }
        svg + "</svg>\n"
    }
}

/// The vertical axis.
struct Scale {
    is_logarithmic: bool,
    least: f64,
    most: f64,
}

impl Scale {
    fn of(least: f64, most: f64) -> Self {
        if least.is_finite() && most / least > 30.0 {
            return Self { is_logarithmic: true, least: floor_of_ten(least), most: floor_of_ten(most) * 10.0 };
        }
        let step = step(most);
        Self { is_logarithmic: false, least: 0.0, most: (most / step).ceil().max(1.0) * step }
    }

    fn share(&self, value: f64) -> f64 {
        if self.is_logarithmic {
            (value.max(self.least) / self.least).log10() / (self.most / self.least).log10()
        } else {
            value / self.most
        }
    }

    fn ticks(&self) -> Vec<f64> {
        if self.is_logarithmic {
            let decades = (self.most / self.least).log10().round() as i32;
            return (0..=decades).map(|decade| self.least * 10f64.powi(decade)).map(rounded).collect();
        }
        let step = step(self.most);
        (0..=(self.most / step).round() as usize).map(|tick| rounded(tick as f64 * step)).collect()
    }
}

fn floor_of_ten(value: f64) -> f64 {
    10f64.powf(value.log10().floor())
}

/// A round distance of ticks, of which there are four to ten.
fn step(most: f64) -> f64 {
    let decade = floor_of_ten(most.max(1e-6));
    let of = |share: f64| decade * share;
    if most / decade < 2.0 {
        of(0.25)
    } else if most / decade < 5.0 {
        of(0.5)
    } else {
        decade
    }
}

/// Without what is left of a binary fraction.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
