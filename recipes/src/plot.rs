//! Plots as self-contained SVG texts, and images: they can stand in an HTML page as they are.

mod fit_chart;
mod spectrogram;

pub use fit_chart::FitChart;
pub use spectrogram::Spectrogram;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::data::Histogram as Bins;

/// Failure of drawing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no finite number to draw.
    #[error("plot `{title}`: nothing to draw")]
    Empty {
        /// The plot's title.
        title: String,
    },
    /// The number of values is not that of the groups.
    #[error("plot `{title}`: `{series}` has {n_values} values for {n_groups} groups")]
    Values {
        /// The plot's title.
        title: String,
        /// The series.
        series: String,
        /// Its values.
        n_values: usize,
        /// Groups that there are.
        n_groups: usize,
    },
    /// The drawing library failed.
    #[error("plot `{title}`: {message}")]
    Drawing {
        /// The plot's title.
        title: String,
        /// What it says.
        message: String,
    },
}

/// Curves over a common axis: losses over steps, a schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct LineChart {
    /// Above the plot.
    pub title: String,
    /// Beside the horizontal axis.
    pub x_label: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// Name and points of each curve. A point that is not finite breaks its curve.
    pub series: Vec<(String, Vec<(f64, f64)>)>,
}

/// How often values lie where.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Above the plot.
    pub title: String,
    /// Beside the horizontal axis.
    pub x_label: String,
    /// Number of bars, about: their bounds are round.
    pub n_bins: usize,
    /// The values; those that are not finite are left out.
    pub values: Vec<f64>,
}

/// Bars in groups, from zero.
#[derive(Debug, Clone, PartialEq)]
pub struct BarChart {
    /// Above the plot.
    pub title: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// Names below the groups.
    pub groups: Vec<String>,
    /// Name and values of each kind of bar, one value for each group.
    pub series: Vec<(String, Vec<f64>)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// Width and height, pixels.
const SIZE: (u32, u32) = (720, 400);
/// Blue, orange, green, red, purple, brown: told apart by most colour-blind readers in this order.
const COLORS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
];
/// Share of its place that a group of bars fills.
const GROUP_WIDTH: f64 = 0.8;

impl LineChart {
    /// The plot.
    ///
    /// # Errors
    /// When no point is finite.
    pub fn to_svg(&self) -> Result<String, Error> {
        let points = || self.series.iter().flat_map(|(_, points)| points).filter(|point| is_finite(point));
        let (Some(x), Some(y)) = (range(points().map(|point| point.0)), range(points().map(|point| point.1)))
        else {
            return Err(Error::Empty { title: self.title.clone() });
        };
        draw(&self.title, |area| {
            let mut chart = builder(area, &self.title).build_cartesian_2d(x.0..x.1, y.0..y.1)?;
            let mut mesh = chart.configure_mesh();
            mesh.x_label_formatter(&tick).y_label_formatter(&tick).light_line_style(TRANSPARENT);
            mesh.x_desc(&self.x_label).y_desc(&self.y_label).draw()?;
            for ((name, points), color) in self.series.iter().zip(COLORS.iter().cycle()) {
                let pieces = points.split(|point| !is_finite(point)).filter(|piece| !piece.is_empty());
                for (index, piece) in pieces.enumerate() {
                    let style = color.stroke_width(2);
                    let drawn = chart.draw_series(LineSeries::new(piece.iter().copied(), style))?;
                    if index == 0 {
                        drawn
                            .label(name)
                            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
                    }
                }
            }
            labels(&mut chart, self.series.len(), SeriesLabelPosition::UpperRight)
        })
    }
}

impl Histogram {
    /// The plot.
    ///
    /// # Errors
    /// When no value is finite or there are no bins.
    pub fn to_svg(&self) -> Result<String, Error> {
        let bins = Some(self.n_bins).filter(|n_bins| *n_bins > 0);
        let Some(bins) = bins.and_then(|n_bins| Bins::of(self.values.iter().copied(), n_bins)) else {
            return Err(Error::Empty { title: self.title.clone() });
        };
        let highest = bins.counts.iter().copied().max().unwrap_or(0) as f64;
        let (low, high) = (bins.start, bins.bound(bins.counts.len()));
        draw(&self.title, |area| {
            let mut chart = builder(area, &self.title).build_cartesian_2d(low..high, 0.0..1.05 * highest)?;
            let mut mesh = chart.configure_mesh();
            mesh.x_label_formatter(&tick).y_label_formatter(&tick).light_line_style(TRANSPARENT);
            mesh.disable_x_mesh().x_desc(&self.x_label).y_desc("count").draw()?;
            let bars = bins.counts.iter().enumerate().map(|(bin, &count)| {
                let corners = [(bins.bound(bin), 0.0), (bins.bound(bin + 1), count as f64)];
                Rectangle::new(corners, COLORS[0].mix(0.8).filled())
            });
            chart.draw_series(bars)?;
            Ok(())
        })
    }
}

impl BarChart {
    /// The plot. Values that are not finite have no bar.
    ///
    /// # Errors
    /// When there is nothing to draw, or a series has a value too many or too few.
    pub fn to_svg(&self) -> Result<String, Error> {
        let n_groups = self.groups.len();
        if let Some((series, values)) = self.series.iter().find(|(_, values)| values.len() != n_groups) {
            return Err(Error::Values {
                title: self.title.clone(),
                series: series.clone(),
                n_values: values.len(),
                n_groups,
            });
        }
        let values = || self.series.iter().flat_map(|(_, values)| values).copied().filter(|v| v.is_finite());
        if values().next().is_none() {
            return Err(Error::Empty { title: self.title.clone() });
        }
        let Some((low, high)) = range(values().chain([0.0])) else {
            return Err(Error::Empty { title: self.title.clone() });
        };
        let width = GROUP_WIDTH / self.series.len() as f64;
        draw(&self.title, |area| {
            let y = low..high + 0.05 * (high - low);
            let mut chart = builder(area, &self.title).build_cartesian_2d(0.0..n_groups as f64, y)?;
            let mut mesh = chart.configure_mesh();
            mesh.y_label_formatter(&tick).light_line_style(TRANSPARENT);
            mesh.disable_x_mesh().x_labels(0).y_desc(&self.y_label).draw()?;
            // Labels of an axis of numbers stand where the numbers are round, not below the groups.
            let style = ("sans-serif", 13).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Top));
            for (group, name) in self.groups.iter().enumerate() {
                let (x, y) = chart.backend_coord(&(group as f64 + 0.5, low));
                area.draw(&Text::new(name.as_str(), (x, y + 8), style.clone()))?;
            }
            for (index, ((name, values), color)) in self.series.iter().zip(COLORS.iter().cycle()).enumerate()
            {
                let bars = values.iter().enumerate().filter(|(_, value)| value.is_finite());
                let bars = bars.map(|(group, &value)| {
                    let start = group as f64 + (1.0 - GROUP_WIDTH) / 2.0 + width * index as f64;
                    Rectangle::new([(start, 0.0), (start + width, value)], color.filled())
                });
                let legend =
                    |(x, y): (i32, i32)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled());
                chart.draw_series(bars)?.label(name).legend(legend);
            }
            labels(&mut chart, self.series.len(), SeriesLabelPosition::UpperRight)
        })
    }
}

/// A number at an axis: without the zeros and the rounding errors of a sum of steps.
fn tick(value: &f64) -> String {
    if *value != 0.0 && value.abs() < 1e-3 {
        return format!("{:e}", format!("{value:.3e}").parse().unwrap_or(*value));
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn is_finite(point: &(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

/// From the smallest to the largest value, never empty: the library draws no axis without length.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values.fold(None, |range: Option<(f64, f64)>, value| {
        Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    })?;
    let margin = if low < high { 0.0 } else { 0.5 * low.abs().max(1.0) };
    Some((low - margin, high + margin))
}

fn builder<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.caption(title, ("sans-serif", 18)).margin(12).x_label_area_size(40).y_label_area_size(64);
    builder
}

/// Names of the series, where there is more than one.
fn labels<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    n_series: usize,
    position: SeriesLabelPosition,
) -> Drawn
where
    X: Ranged,
    Y: Ranged,
{
    if n_series < 2 {
        return Ok(());
    }
    let mut labels = chart.configure_series_labels();
    labels.position(position).background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3));
    labels.draw()
}

fn draw(title: &str, plot: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, Error> {
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).and_then(|()| plot(&area)).and_then(|()| area.present())
    };
    match drawn {
        Ok(()) => Ok(svg),
        Err(error) => Err(Error::Drawing { title: title.to_owned(), message: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(svg: &str, what: &str) -> usize {
        svg.matches(what).count()
    }

    #[test]
    fn lines_are_drawn_and_broken_where_there_is_no_number() {
        let chart = LineChart {
            title: "loss <&> \"schedule\"".to_owned(),
            x_label: "step".to_owned(),
            y_label: "loss".to_owned(),
            series: vec![
                ("train".to_owned(), vec![(0.0, 3.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 1.5), (4.0, 1.0)]),
                ("dev".to_owned(), vec![(0.0, 3.5), (4.0, 2.0)]),
            ],
        };
        let svg = chart.to_svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("loss &lt;&amp;&gt;") && svg.contains("dev"), "{svg}");
        // Two pieces and a curve, each with its legend once.
        assert_eq!(count(&svg, "#1F77B4"), 3);
        assert_eq!(count(&svg, "#FF7F0E"), 2);
        let empty = LineChart { series: vec![("train".to_owned(), vec![(0.0, f64::NAN)])], ..chart };
        assert!(matches!(empty.to_svg(), Err(Error::Empty { .. })));
    }

    #[test]
    fn numbers_at_axes_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (2000.0, "2000"),
            (0.1 + 0.2, "0.3"),
            (-1.5, "-1.5"),
            (0.001, "0.001"),
            (5e-5 + 1e-20, "5e-5"),
            (2.25e-5, "2.25e-5"),
        ] {
            assert_eq!(tick(&value), expected);
        }
    }

    #[test]
    fn histograms_count_every_value_once() {
        let histogram = Histogram {
            title: "durations".to_owned(),
            x_label: "s".to_owned(),
            n_bins: 4,
            values: vec![0.0, 0.5, 1.0, 2.5, 4.0, 4.0, f64::NAN],
        };
        let svg = histogram.to_svg().unwrap();
        // From 0 in steps of 1; the largest value begins a fifth.
        assert_eq!(count(&svg, "#1F77B4"), 5);
        // A single value still has a width; no bars have none.
        assert!(Histogram { values: vec![5.0; 3], ..histogram.clone() }.to_svg().is_ok());
        assert!(Histogram { n_bins: 0, ..histogram.clone() }.to_svg().is_err());
        assert!(Histogram { values: vec![], ..histogram }.to_svg().is_err());
    }

    #[test]
    fn bars_stand_in_groups() {
        let chart = BarChart {
            title: "padding".to_owned(),
            y_label: "%".to_owned(),
            groups: ["random", "sorted", "buckets"].map(str::to_owned).to_vec(),
            series: vec![
                ("audio".to_owned(), vec![48.0, 0.3, 4.0]),
                ("tokens".to_owned(), vec![52.0, 29.0, 11.0]),
            ],
        };
        let svg = chart.to_svg().unwrap();
        for name in ["random", "sorted", "buckets", "audio", "tokens"] {
            assert_eq!(count(&svg, name), 1, "{name}");
        }
        // Three bars and the legend.
        assert_eq!((count(&svg, "#1F77B4"), count(&svg, "#FF7F0E")), (4, 4));
        assert_eq!(svg, chart.to_svg().unwrap());
        let uneven = BarChart { groups: vec!["random".to_owned()], ..chart };
        assert!(matches!(uneven.to_svg(), Err(Error::Values { n_values: 3, n_groups: 1, .. })));
    }
}
