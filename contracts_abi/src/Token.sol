// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Owned} from "./Owned.sol";

/// ERC-20 that stands for LSAN: 18 decimals, minted by its owner, and sold for the network's own coin as far as its owner
/// has offered. The supply stays below 2^96, so that the managers can keep a stake and its shares in one storage slot.
contract Token is Owned {
    uint256 private constant MAX_SUPPLY = type(uint96).max;

    string public constant name = "Log Store Token";
    string public constant symbol = "LSAN";
    uint8 public constant decimals = 18;

    uint256 public totalSupply;
    /// What one base unit costs, in wei; 0 where nothing is sold.
    uint256 public price;
    /// Base units that are still for sale.
    uint256 public offered;
    mapping(address account => uint256) public balanceOf;
    mapping(address account => mapping(address spender => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);
    event Offered(uint256 price, uint256 amount);
    event Bought(address indexed buyer, uint256 amount, uint256 paid);
    event ProceedsWithdrawn(address indexed to, uint256 amount);

    error InsufficientBalance(address account, uint256 balance, uint256 needed);
    error InsufficientAllowance(address spender, uint256 allowance, uint256 needed);
    error SupplyTooLarge();
    error ZeroAddress();
    error NotForSale();
    error AmountTooSmall(uint256 price);
    error NotEnoughOffered(uint256 offered, uint256 wanted);
    error InsufficientProceeds(uint256 available, uint256 wanted);
    error PaymentFailed();

    /// Sells the caller what its wei pay for; what is left over of a base unit's price is not given back.
    function mint() external payable {
        uint256 cost = price;
        if (cost == 0) revert NotForSale();
        uint256 amount = msg.value / cost;
        if (amount == 0) revert AmountTooSmall(cost);
        uint256 left = offered;
        if (amount > left) revert NotEnoughOffered(left, amount);
        unchecked {
            offered = left - amount;
        }
        emit Bought(msg.sender, amount, msg.value);
        _mint(msg.sender, amount);
    }

    function mintTokens(address to, uint256 amount) external onlyOwner {
        _mint(to, amount);
    }

    /// Offers up to `amount` base units for `price_` wei each from now on, in place of what was offered; 0 for no sale.
    function offer(uint256 price_, uint256 amount) external onlyOwner {
        price = price_;
        offered = amount;
        emit Offered(price_, amount);
    }

    /// What was paid and not withdrawn, in wei.
    function balance() external view returns (uint256) {
        return address(this).balance;
    }

    /// Pays out what was paid here, to the owner.
    function withdraw(uint256 amount) external onlyOwner {
        uint256 available = address(this).balance;
        if (available < amount) revert InsufficientProceeds(available, amount);
        emit ProceedsWithdrawn(msg.sender, amount);
        (bool paid,) = msg.sender.call{value: amount}("");
        if (!paid) revert PaymentFailed();
    }

    function approve(address spender, uint256 amount) external returns (bool) {
        allowance[msg.sender][spender] = amount;
        emit Approval(msg.sender, spender, amount);
        return true;
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        _move(msg.sender, to, amount);
        return true;
    }

    function transferFrom(address from, address to, uint256 amount) external returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        if (allowed != type(uint256).max) {
            if (allowed < amount) revert InsufficientAllowance(msg.sender, allowed, amount);
            unchecked {
                allowance[from][msg.sender] = allowed - amount;
            }
        }
        _move(from, to, amount);
        return true;
    }

    function _move(address from, address to, uint256 amount) private {
        if (to == address(0)) revert ZeroAddress();
        uint256 held = balanceOf[from];
        if (held < amount) revert InsufficientBalance(from, held, amount);
        unchecked {
            balanceOf[from] = held - amount;
            balanceOf[to] += amount;
        }
        emit Transfer(from, to, amount);
    }

    function _mint(address to, uint256 amount) private {
        if (to == address(0)) revert ZeroAddress();
        if (amount > MAX_SUPPLY - totalSupply) revert SupplyTooLarge();
        totalSupply += amount;
        unchecked {
            balanceOf[to] += amount;
        }
        emit Transfer(address(0), to, amount);
    }
}
