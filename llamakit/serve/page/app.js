"use strict";

async function begin() {
  const options = await (await fetch("v1/llamakit/options")).json();
  document.getElementById("model").textContent = options.model;
}

begin();
