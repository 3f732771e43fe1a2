// Opens reports in headless Chromium as a wide window and as a telephone.
// Exits with 1 where a page logs, fails, asks for anything but itself, or is
// wider than its window.
import { mkdirSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const reports = process.argv.slice(2);
if (reports.length === 0) {
  console.error("usage: node check.mjs REPORT.html ... (screenshots land in $SCREENSHOTS, where set)");
  process.exit(2);
}
const screenshots = process.env.SCREENSHOTS;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
let bad = 0;
for (const report of reports) {
  for (const width of [1280, 400]) {
    const complaints = [];
    const page = await browser.newPage({ viewport: { width, height: 900 }, deviceScaleFactor: width < 800 ? 2 : 1 });
    const url = pathToFileURL(resolve(report)).href;
    page.on("console", (m) => complaints.push(`console ${m.type()}: ${m.text()}`));
    page.on("pageerror", (e) => complaints.push(`error: ${e.message}`));
    page.on("request", (r) => {
      if (r.url() !== url && !r.url().startsWith("data:")) complaints.push(`request: ${r.url()}`);
    });
    const answer = await page.goto(url, { waitUntil: "load" });
    if (!answer?.ok()) complaints.push(`cannot open it (${answer?.status()})`);
    await page.waitForTimeout(200);
    const overflow = () => document.documentElement.scrollWidth - window.innerWidth;
    if ((await page.evaluate(overflow)) > 0) complaints.push(`wider than the window by ${await page.evaluate(overflow)} px`);
    if (screenshots) {
      mkdirSync(screenshots, { recursive: true });
      const name = `${basename(dirname(resolve(report)))}-${basename(report, ".html")}-${width}.png`;
      await page.screenshot({ path: join(screenshots, name), fullPage: true });
    }
    // Folded tables must not widen the page either.
    await page.evaluate(() => document.querySelectorAll("details").forEach((d) => (d.open = true)));
    if ((await page.evaluate(overflow)) > 0) complaints.push("wider than the window with its tables unfolded");
    await page.close();
    for (const c of complaints) console.error(`${report} at ${width} px: ${c}`);
    bad += complaints.length;
    console.log(`${report} at ${width} px: ${complaints.length === 0 ? "ok" : "bad"}`);
  }
}
await browser.close();
process.exit(bad === 0 ? 0 : 1);
