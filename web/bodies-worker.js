/** Paints the shape of a call off the page's thread, which is for what the caller does. */

import { Bodies } from "./bodies.js";

const bodies = new Bodies();
self.onmessage = (/** @type {MessageEvent<import("./bodies.js").Command>} */ { data }) => bodies.command(data);
