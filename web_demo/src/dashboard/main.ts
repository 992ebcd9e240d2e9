import "uplot/dist/uPlot.min.css";
import { Plot } from "./plot.ts";
import { readSpec } from "./plot_spec.ts";

/** Draw every plot of the page. Without this script the same numbers stand in the tables beside the plots. */
for (const place of document.querySelectorAll<HTMLElement>("[data-plot]")) {
  new Plot(place, readSpec(place.dataset["plot"] ?? ""));
}

/** Pages that show something under way ask for themselves again, unless somebody is typing or has opened something. */
const refresh = Number(document.body.dataset["refresh"] ?? 0);
if (refresh > 0) {
  setInterval(() => {
    const busy = document.querySelector("details[open], :focus-within:is(input, select, textarea)");
    if (document.visibilityState === "visible" && busy === null) location.reload();
  }, refresh * 1000);
}
