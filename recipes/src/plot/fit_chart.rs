//! What was measured beside what a fit says of it.

use plotters::prelude::*;

use super::{COLORS, Error, builder, draw, is_finite, labels, range, tick};

/// Points, and curves with a band around them. What is not finite is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct FitChart {
    /// Above the plot.
    pub title: String,
    /// Beside the horizontal axis.
    pub x_label: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// Abscissa, lower and upper bound of what lies around the first curve.
    pub band: Vec<(f64, f64, f64)>,
    /// Name and points of each curve.
    pub curves: Vec<(String, Vec<(f64, f64)>)>,
    /// Name and places of each kind of point.
    pub points: Vec<(String, Vec<(f64, f64)>)>,
}

impl FitChart {
    /// The plot.
    ///
    /// # Errors
    /// When nothing is finite.
    pub fn to_svg(&self) -> Result<String, Error> {
        let band: Vec<_> = self.band.iter().filter(|(x, low, high)| (x + low + high).is_finite()).collect();
        let bounds = band.iter().flat_map(|(x, low, high)| [(*x, *low), (*x, *high)]);
        let named = || self.curves.iter().chain(&self.points).flat_map(|(_, points)| points.iter().copied());
        let all: Vec<(f64, f64)> = named().filter(is_finite).chain(bounds).collect();
        let (Some(x), Some(y)) =
            (range(all.iter().map(|point| point.0)), range(all.iter().map(|point| point.1)))
        else {
            return Err(Error::Empty { title: self.title.clone() });
        };
        // Points stand on no edge.
        let wider = |(low, high): (f64, f64)| {
            let margin = 0.04 * (high - low);
            low - margin..high + margin
        };
        draw(&self.title, |area| {
            let mut chart = builder(area, &self.title).build_cartesian_2d(wider(x), wider(y))?;
            let mut mesh = chart.configure_mesh();
            mesh.x_label_formatter(&tick).y_label_formatter(&tick).light_line_style(TRANSPARENT);
            mesh.x_desc(&self.x_label).y_desc(&self.y_label).draw()?;
            if !band.is_empty() {
                let below = band.iter().map(|(x, low, _)| (*x, *low));
                let above = band.iter().rev().map(|(x, _, high)| (*x, *high));
                let outline: Vec<_> = below.chain(above).collect();
                chart.draw_series([Polygon::new(outline, COLORS[0].mix(0.2))])?;
            }
            let mut colors = COLORS.iter().cycle();
            for ((name, points), color) in self.curves.iter().zip(colors.by_ref()) {
                let style = color.stroke_width(2);
                let points = points.iter().copied().filter(is_finite);
                chart
                    .draw_series(LineSeries::new(points, style))?
                    .label(name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
            }
            for ((name, points), color) in self.points.iter().zip(colors) {
                let style = color.filled();
                let points = points.iter().copied().filter(is_finite);
                chart
                    .draw_series(points.map(|point| Circle::new(point, 4, style)))?
                    .label(name)
                    .legend(move |(x, y)| Circle::new((x + 8, y), 4, style));
            }
            // Neither a rising line nor the bottom of a valley is there.
            labels(&mut chart, self.curves.len() + self.points.len(), SeriesLabelPosition::UpperMiddle)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_stand_beside_their_curve_in_its_band() {
        let chart = FitChart {
            title: "fit".to_owned(),
            x_label: "size".to_owned(),
            y_label: "loss".to_owned(),
            band: vec![(0.0, 1.0, 3.0), (1.0, 0.5, 2.0), (2.0, f64::NAN, 1.0)],
            curves: vec![("law".to_owned(), vec![(0.0, 2.0), (1.0, 1.0)])],
            points: vec![("runs".to_owned(), vec![(0.0, 2.1), (0.5, f64::NAN), (1.0, 0.9)])],
        };
        let svg = chart.to_svg().expect("a plot");
        assert_eq!(svg.matches("<polygon").count(), 1, "{svg}");
        // Two points and one in the legend.
        assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
        assert!(svg.contains("law") && svg.contains("runs"));
        let nothing = FitChart { band: Vec::new(), curves: Vec::new(), points: Vec::new(), ..chart };
        assert!(matches!(nothing.to_svg(), Err(Error::Empty { .. })));
    }
}
