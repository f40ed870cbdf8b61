// Loaded into Node.js before a program that has no option for its address: every server listens on loopback only.
const { Server } = require("node:net");
const listen = Server.prototype.listen;
Server.prototype.listen = function (first, ...rest) {
  if (typeof first === "object" && first !== null && first.port !== undefined)
    return listen.call(this, { ...first, host: "127.0.0.1" }, ...rest);
  if (typeof first === "number") return listen.call(this, { port: first, host: "127.0.0.1" }, ...rest.slice(-1));
  return listen.call(this, first, ...rest);
};
